"""Switches: torch's, the environment's; those for debugging, and those that change nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ganeum.doctor.audit.script import Seen
from ganeum.doctor.audit.settings import Nothing, Said

DEBUGGING = {
    "CUDA_LAUNCH_BLOCKING": ("1", "every kernel is waited for"),
    "TORCH_USE_CUDA_DSA": ("1", "kernels check themselves"),
    "TORCH_SHOW_CPP_STACKTRACES": ("1", ""),
    "NCCL_DEBUG": ("TRACE", "every message is written down"),
    "PYTORCH_NO_CUDA_MEMORY_CACHING": ("1", "every tensor is asked of the driver"),
}


def debugging(seen: Seen) -> Iterator[Said]:
    """What is for finding errors, left on."""
    script = seen.script
    for name, (value, why) in DEBUGGING.items():
        if name in script.environment and script.environment[name][0] == value and why:
            yield seen.found(
                "debug_mode", f"{name}={value}: {why}", script.environment[name][1], change=f"without {name}"
            )
    cards = script.environment.get("CUDA_VISIBLE_DEVICES")
    whatever_happens = {node.lineno for node in script.tree.body if isinstance(node, (ast.Assign, ast.Expr))}
    if cards is not None and cards[0] in ("", "-1") and cards[1] in whatever_happens and script.trains:
        yield seen.found(
            "on_cpu",
            "no GPU is visible to it: it trains on the CPU",
            cards[1],
            severity="error",
            change='os.environ["CUDA_VISIBLE_DEVICES"] = "0", or without it',
        )
    for call in script.calls:
        last = call.name.rpartition(".")[2]
        on = call.values[:1] in ((True,), ()) and call.get("mode") is not False
        if last in ("set_detect_anomaly", "detect_anomaly") and on:
            yield seen.found("debug_mode", "every operation is checked for nan", call.line, change="without it")
        elif last == "use_deterministic_algorithms" and call.values[:1] == (True,):
            yield seen.found(
                "debug_mode",
                "only deterministic kernels, of which some are slow",
                call.line,
                severity="note",
                change="without it, where the same weights bit for bit are not needed",
            )
        elif (
            call.name in ("torch.autograd.profiler.profile", "torch.profiler.profile")
            and "schedule" not in call.keywords
            and script.trains
        ):
            yield seen.found(
                "debug_mode", "the profiler records every step", call.line, change="with schedule=…, for a few steps"
            )


def threads(seen: Seen) -> Iterator[Said]:
    """Threads beside loader processes."""
    script = seen.script
    for call in script.called("set_num_threads"):
        if call.values[:1] and isinstance(call.values[0], int) and call.values[0] > 32:
            yield seen.found(
                "oversubscription",
                f"{call.values[0]} threads",
                call.line,
                severity="note",
                change="as many as there are cores, or none of it",
            )
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        value, line = script.environment.get(name, ("", 0))
        if value.isdigit() and int(value) > 32:
            yield seen.found(
                "oversubscription", f"{name}={value}", line, severity="note", change="as many as there are cores"
            )
    said = script.environment.get("TOKENIZERS_PARALLELISM")
    if said is not None and said[0].lower() == "false":
        yield Nothing("TOKENIZERS_PARALLELISM=false: it silences a warning; tokenising beforehand becomes slower by it")
    if "MKL_SERVICE_FORCE_INTEL" in script.environment or "MKL_THREADING_LAYER" in script.environment:
        yield Nothing(
            "MKL_THREADING_LAYER, MKL_SERVICE_FORCE_INTEL: they mend a clash of libraries, and make nothing faster"
        )


def tf32(seen: Seen) -> Iterator[Said]:
    """TF32, where it does little."""
    script = seen.script
    on = [o for o in script.assignments if o.target.endswith("allow_tf32") and o.known is True]
    on_calls = [c for c in script.called("set_float32_matmul_precision") if "highest" not in c.values]
    if not on and not on_calls:
        return
    geforce = seen.device is None or "geforce" in seen.device.name.lower()
    typed = seen.of_hugging_face
    half = any(call.ends("autocast") for call in script.calls) or (
        typed is not None and (typed.get("bf16") is True or typed.get("fp16") is True)
    )
    if half:
        yield Nothing("TF32: products are in bf16 or fp16 here, which TF32 does not touch")
    elif geforce:
        yield Nothing(
            "TF32 on a GeForce card: by its data sheet it multiplies TF32 no faster than fp32 (RTX 3090 35.6 "
            "and 35.6 TFLOPS); "
            "on an A100 it is eight times as fast"
        )


def sides(seen: Seen) -> Iterator[Said]:
    """The padding side that it has anyway."""
    for one in seen.script.assignments:
        if one.target.endswith("padding_side") and one.known == "right" and seen.script.trains:
            yield Nothing('padding_side = "right": right for training, the default of most tokenizers, and no faster')


LOOKS = (debugging, threads, tf32, sides)
