"""Number formats, shapes, the optimizer and the compiler of a loop that somebody wrote by hand."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ganeum import units
from ganeum.doctor.audit.script import Seen
from ganeum.doctor.audit.settings import AMPERE, Nothing, Said, capability
from ganeum.doctor.audit.source import Call, Script

OPTIMIZERS = ("torch.optim.AdamW", "torch.optim.Adam", "torch.optim.SGD")
ELSEWHERE = re.compile(r"bfloat16|float16|\bbf16|\bfp16|mixed_precision|\bamp\b", re.IGNORECASE)
A100 = 312e12  # FLOP/s in bf16, which many a script holds for every card's
HEADS = (("n_embd", "n_head"), ("hidden_size", "num_attention_heads"), ("d_model", "n_heads"), ("emb_dim", "n_heads"))
WIDEST_HEAD = 256  # of the flash kernel
WIDTHS = ("n_embd", "d_model", "hidden_size", "emb_dim", "embed_dim", "dim", "d_ff", "intermediate_size")


def precision(seen: Seen) -> Iterator[Said]:
    """A loop without autocast; fp16 without a scaler; weights in half precision."""
    script = seen.script
    if script.loop is None:
        return
    old = (capability(seen.device) or AMPERE) < AMPERE
    casts = [call for call in script.calls if call.ends("autocast")]
    half = [call for call in script.calls if call.ends("half", "bfloat16") and not call.values]
    half += [call for call in script.calls if call.ends("to") and _typed(script.text, call.line)]
    others = script.managed or any(
        call.ends("Accelerator", "initialize", "Fabric", "set_default_dtype") for call in script.calls
    )
    if not casts and not half and not others and not seen.typed and not ELSEWHERE.search(script.text):
        yield seen.found(
            "fp32",
            "everything is computed in fp32: no autocast is seen",
            script.loop.lineno,
            change="with torch.autocast('cuda', dtype=torch.float16) and a GradScaler: "
            if old
            else "with torch.autocast('cuda', dtype=torch.bfloat16): around forward and loss",
        )
        high = any(call.ends("set_float32_matmul_precision") and "highest" not in call.values for call in script.calls)
        allowed = any(one.target.endswith("matmul.allow_tf32") and one.known is True for one in script.assignments)
        geforce = seen.device is not None and "geforce" in seen.device.name.lower()
        if not high and not allowed and not old:
            yield seen.found(
                "tf32_off",
                "fp32 products without TF32",
                script.loop.lineno,
                severity="note",
                evidence=("a GeForce multiplies TF32 no faster than fp32 on paper: little is to be had",)
                if geforce
                else ("on A100, H100 and their like it is much; on GeForce cards little, by their data sheets",),
                change="torch.set_float32_matmul_precision('high'), where autocast is not wanted",
            )
    for call in casts:
        said = call.written.get("dtype", "") + " ".join(map(str, call.values))
        if "float16" in said and "bfloat16" not in said:
            if not any(one.ends("GradScaler") for one in script.calls):
                yield seen.found(
                    "fp16",
                    "fp16 without a GradScaler: small gradients become zero",
                    call.line,
                    severity="error",
                    change="torch.amp.GradScaler, or bf16",
                )
        elif "bfloat16" in said and old:
            yield seen.found(
                "bf16_emulated", "this card has no hardware for bf16", call.line, change="fp16 and a GradScaler"
            )
    for call in half:
        if not call.ends("to") or "model" in call.name:
            yield seen.found(
                "pure_half",
                "the weights themselves are in half precision",
                call.line,
                evidence=("an update smaller than a 256th (bf16) or a 2,048th (fp16) of a weight is lost",),
                change="fp32 weights and autocast; for inference it is right as it is",
                severity="note",
            )


def _typed(text: str, line: int) -> bool:
    said = text.splitlines()[line - 1]
    return "model" in said.split("=")[0] and ("bfloat16" in said or "float16" in said) and ".to(" in said


def shapes(seen: Seen) -> Iterator[Said]:
    """Vocabularies and widths that fill no whole tiles."""
    script = seen.script
    told: set[str] = set()
    for name, node in script.keyed():
        value = script.value(node)
        if not isinstance(value, int) or isinstance(value, bool) or name in told:
            continue
        if name.lower() == "vocab_size" and value > 8_000 and value % 64:
            told.add(name)
            yield seen.found(
                "odd_vocabulary",
                f"a vocabulary of {value:,} is no multiple of 64",
                node.lineno,
                severity="note",
                change=f"a head of {-(-value // 64) * 64:,} rows; the added ones are never a label",
            )
        elif name.lower() in WIDTHS and value >= 64 and value % 8:
            told.add(name)
            yield seen.found(
                "odd_widths",
                f"{name} = {value} is no multiple of 8",
                node.lineno,
                evidence=("tensor cores then work on tiles that are not full, or not at all",),
                change=f"{name} = {-(-value // 64) * 64}",
            )
    for width, heads in HEADS:
        (wide, line), (many, _) = _single(script, width), _single(script, heads)
        if wide and many and wide / many > WIDEST_HEAD:
            yield seen.found(
                "wide_heads",
                f"heads of {wide // many} numbers",
                line,
                evidence=(f"the flash kernel takes {WIDEST_HEAD} at most; wider ones go through a slower one",),
                severity="note",
                change=f"{heads} = {wide // 64}, whose heads are 64 wide" if wide % 64 == 0 else f"a larger {heads}",
            )
    length = next((n for n in script.keyed() if n[0].lower() in ("context_length", "block_size", "max_length")), None)
    if length is not None and script.loop is not None:
        value = script.value(length[1])
        if isinstance(value, int) and 0 < value <= 64:
            yield seen.found(
                "short_context",
                f"a context of {value} tokens",
                length[1].lineno,
                severity="note",
                evidence=("overhead that does not depend on it is then most of a small step's work",),
                change="a longer context and fewer rows: as many tokens, far fewer windows",
            )


def _single(script: Script, called: str) -> tuple[int, int]:
    """A number that has one value in the whole script, and its line; 0 where it has none, or several."""
    found = [(script.value(node), node.lineno) for name, node in script.keyed() if name.lower() == called]
    value, line = found[-1] if found else (0, 0)
    return (value, line) if type(value) is int and all(other == value for other, _ in found) else (0, 0)


def optimizer(seen: Seen) -> Iterator[Said]:
    """One that is not fused, or goes through the weights one by one."""
    for call in seen.script.calls:
        if call.name in OPTIMIZERS or call.name in ("transformers.AdamW", "transformers.optimization.AdamW"):
            if call.get("foreach") is False:
                yield seen.found(
                    "slow_optimizer", "foreach=False updates the weights one by one", call.line, change="fused=True"
                )
            elif (
                "fused" not in call.keywords
                and not call.spread
                and (capability(seen.device) is not None or seen.device is None)
            ):
                yield seen.found(
                    "slow_optimizer",
                    f"{call.name.rpartition('.')[2]} without fused=True",
                    call.line,
                    severity="note",
                    change="fused=True",
                )


def compiled(seen: Seen) -> Iterator[Said]:
    """Nothing compiled, or compiled anew for every length."""
    script = seen.script
    found = next((call for call in script.calls if call.name in ("torch.compile", "model.compile")), None)
    if script.loop is not None and found is None and not script.managed:
        yield seen.found(
            "not_compiled",
            "the model is not compiled",
            script.loop.lineno,
            severity="note",
            evidence=(
                "it pays where many small kernels are started: small models, short contexts; and runs of minutes",
            ),
            change="model = torch.compile(model)",
        )
    longest = any(call.get("padding") in (True, "longest") for call in script.calls)
    arguments = seen.of_hugging_face
    if found is None and arguments is not None and arguments.get("torch_compile") is True:
        found = arguments
        longest = longest or any(_pads_to_longest(call) for call in script.calls)
        longest = longest and not any(call.get("padding") == "max_length" for call in script.calls)
    if found is not None:
        yield from _breaks(seen)
    if found is not None and longest and found.get("dynamic") is not True:
        yield seen.found(
            "recompiles",
            "compiled code and batches padded to the longest: every new length is compiled anew",
            found.line,
            severity="note",
            change="torch.compile(model, dynamic=True), or a few lengths (pad_to_multiple_of=64)",
        )
    if found is not None and found.get("mode") == "max-autotune":
        yield seen.found(
            "compile_start",
            "max-autotune compiles for minutes",
            found.line,
            severity="note",
            change="without it in runs of less than an hour",
        )


def _pads_to_longest(call: Call) -> bool:
    """Whether it is a collator whose batches are as wide as their longest row."""
    pads = call.ends("DataCollatorWithPadding", "DataCollatorForSeq2Seq", "DataCollatorForLanguageModeling")
    return pads and "pad_to_multiple_of" not in call.keywords and not call.spread


def _breaks(seen: Seen) -> Iterator[Said]:
    """What a compiled forward pass cannot hold: its graph ends there, and begins anew."""
    for call in seen.script.calls:
        leaves = call.name == "print" or (call.ends("item", "tolist", "numpy") and not call.values)
        if leaves and seen.script.inside(call.node).endswith(".forward"):
            yield seen.found(
                "graph_breaks",
                "compiled code is left in the forward pass",
                call.line,
                severity="note",
                change="without it, or behind the model",
            )
            return


def unneeded(seen: Seen) -> Iterator[Said]:
    """What is cuDNN's, whose work are convolutions."""
    for one in seen.script.assignments:
        name = one.target.rpartition(".")[2]
        if one.target.endswith(("cudnn.benchmark", "cudnn.deterministic")) and isinstance(one.known, bool):
            yield Nothing(
                f"torch.backends.cudnn.{name} = {one.known}: it is about convolutions, and transformers have none"
            )


def peak(seen: Seen) -> Iterator[Said]:
    """Utilisation beside an A100's peak, on another card."""
    if seen.device is None or seen.device.kind != "cuda" or "A100" in seen.device.name:
        return
    for node in ast.walk(seen.script.tree):
        if isinstance(node, ast.Constant) and node.value == A100:
            own = seen.device.peak_flops_per_second.get("bf16") or seen.device.peak_flops_per_second.get("fp16")
            yield seen.found(
                "wrong_peak",
                "utilisation is reckoned beside the 312 TFLOPS of an A100",
                node.lineno,
                evidence=(f"{seen.device.name} has {units.flops(own)}/s",) if own else (),
                severity="note",
                change=f"{own:.3g}" if own else "the card's own peak",
            )
            return


LOOKS = (precision, shapes, optimizer, compiled, unneeded, peak)
