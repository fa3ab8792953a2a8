"""Each figure of a plan derived line by line, with the numbers put in: arithmetic that anyone can check by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ganeum import units
from ganeum.config.schema import Config
from ganeum.plan.architecture import configured, ours
from ganeum.plan.architecture.parts import Architecture
from ganeum.plan.execution import Execution, offload, zero_stage
from ganeum.plan.memory import state
from ganeum.plan.page import derive
from ganeum.plan.page.derive import Line, plus
from ganeum.plan.question.use import Use

Plan = dict[str, Any]


def explain(config: Config, plan: Plan) -> str:
    """The derivation of ``plan``, which was made from ``config``, as plain text in sections.

    FLOPs are counted as :mod:`ganeum.plan.flops` argues.
    """
    model, train = config.model, config.train
    settled = _settled(plan, "train.")
    told = plan["model"]
    way = Execution(
        length=settled.get("model.block_size", told.get("length", model.block_size)),
        source_length=told.get("source_length", 0),
        checkpointing=settled.get("train.activation_checkpointing", train.activation_checkpointing),
        weights=train.weights,
        optimizer=train.optimizer,
        momentum=train.momentum,
        lora=train.lora,
        offload=offload(train) if plan["device"]["kind"] == "cuda" else "none",
        zero_stage=zero_stage(train),
        **_run(plan),
    )
    if model.source is not None:
        return _text(configured.of(config), way, plan, [*_of_examples(config, plan), *_steps(config, plan)])
    shape = model.model_copy(update={"block_size": way.length})
    architecture = ours.architecture(shape, told["vocab_size"])
    return _text(architecture, way, plan, [*_length(config, way.length, plan), *_steps(config, plan)])


def named(architecture: Architecture, use: Use, plan: Plan) -> str:
    """The same of the plan of a model that is known by its name (:mod:`ganeum.plan.question.named`)."""
    settled = _settled(plan, "")
    again = settled.get("activation_checkpointing", use.activation_checkpointing)
    way = Execution(
        purpose=plan["purpose"],
        length=plan["model"]["length"],
        source_length=plan["model"].get("source_length", 0),
        beams=use.beams,
        checkpointing="none" if again == "auto" else again,
        weights=settled.get("weights", use.weights if use.weights != "auto" else "fp32"),
        optimizer=use.optimizer,
        lora=use.lora,
        zero_stage=use.zero_stage,
        offload=use.offload,
        devices=use.devices,
        **_run(plan),
    )
    return _text(architecture, way, plan, [*_tokens(plan)])


def _settled(plan: Plan, prefix: str) -> dict[str, Any]:
    return {
        choice["key"]: choice["value"] for choice in plan["choices"] if choice["key"].startswith((prefix, "model."))
    }


def _run(plan: Plan) -> dict[str, Any]:
    """What every plan says of how it is run."""
    batch, device = plan["batch"], plan["device"]
    return {
        "micro_batch_size": batch["micro_batch_size"],
        "accumulation": batch["gradient_accumulation_steps"],
        "kind": device["kind"],
        "precision": device["precision"],
    }


def _text(architecture: Architecture, way: Execution, plan: Plan, length: list[Line]) -> str:
    sections = {
        "Parameters": derive.parameters(architecture, way.lora),
        "FLOPs": [*derive.flops(architecture, _usual(way, plan)), *_a_token(plan), *_whole_run(plan)],
        "Length": length,
        "Batch": _batch(plan),
        "Memory": _memory(architecture, way, plan),
        "Time": _time(plan),
    }
    return "\n\n".join(text for title, lines in sections.items() if (text := derive.section(title, lines)))


def _usual(way: Execution, plan: Plan) -> Execution:
    """Examples are counted as long as they usually are."""
    usual = plan["data"].get("usual_row")
    return replace(way, length=usual["target"], source_length=usual["source"]) if usual else way


def _a_token(plan: Plan) -> Iterator[Line]:
    """Of examples, whose tokens are not as many as places."""
    if "usual_row" not in plan["data"]:
        return
    flops, tokens = plan["flops"], plan["batch"]["tokens_per_step"]
    numbers = f"{flops['per_step']:,} / {tokens:,}"
    yield Line("a token", "a step's / tokens in a step", numbers, f"{flops['per_token']:,}")


def _of_examples(config: Config, plan: Plan) -> Iterator[Line]:
    data, train, per_step = plan["data"], config.train, plan["batch"]["tokens_per_step"]
    if train.batch_tokens is not None:
        yield Line("tokens in a step", "batch_tokens", f"{train.batch_tokens:,}", f"{per_step:,}")
    elif "examples" in data:
        numbers = f"{data['tokens']:,} / {data['steps_per_epoch']:,}"
        yield Line("tokens in a step", "tokens / steps in an epoch", numbers, f"{per_step:,}")
    else:
        most = config.data.max_length, config.data.max_target_length * (config.data.kind != "texts")
        numbers = f"{train.batch_size:,}·({most[0]:,} + {most[1]:,})"
        yield Line("tokens in a step", "at most batch_size·(max_length + max_target_length)", numbers, f"{per_step:,}")
    if "examples" in data:
        what, numbers = "examples / batch_size, rounded up", f"{data['examples']:,} / {train.batch_size:,}"
        if train.batch_tokens is not None:
            what, numbers = "tokens / batch_tokens", f"{data['tokens']:,} / {per_step:,}"
        yield Line("steps in an epoch", what, numbers, f"{data['steps_per_epoch']:,}")


def _whole_run(plan: Plan) -> Iterator[Line]:
    flops = plan["flops"]
    if "total" in flops:
        numbers = f"{flops['per_step']:,}·{plan['data']['steps']:,}"
        yield Line("the run", "a step's·steps", numbers, f"{flops['total']:,} ({units.flops(flops['total'])})")


def _length(config: Config, block_size: int, plan: Plan) -> Iterator[Line]:
    data, train, per_step = plan["data"], config.train, plan["batch"]["tokens_per_step"]
    yield Line("tokens in a step", "batch_size·block_size", f"{train.batch_size:,}·{block_size:,}", f"{per_step:,}")
    if "windows" in data:
        yield Line(
            "windows",
            "(tokens - block_size - 1) // stride + 1",
            f"({data['tokens']:,} - {block_size:,} - 1) // {data['stride']:,} + 1",
            f"{data['windows']:,}",
        )
        yield Line(
            "steps in an epoch",
            "windows // batch_size",
            f"{data['windows']:,} // {train.batch_size:,}",
            f"{data['steps_per_epoch']:,}",
        )


def _steps(config: Config, plan: Plan) -> Iterator[Line]:
    data, train, per_step = plan["data"], config.train, plan["batch"]["tokens_per_step"]
    if "steps" not in data:
        return
    steps = f"{data['steps']:,}"
    if train.eval_only:
        yield Line("steps", "train.eval_only", "0", steps)
    elif train.max_iters is not None:
        yield Line("steps", "train.max_iters", f"{train.max_iters:,}", steps)
    elif train.tokens is not None:
        yield Line("steps", "tokens / tokens in a step, rounded up", f"-(-{train.tokens:,.0f} // {per_step:,})", steps)
    elif train.epochs is not None:
        numbers = f"{train.epochs:g}·{data['steps_per_epoch']:,}"
        yield Line("steps", "epochs·steps in an epoch, rounded up", numbers, steps)
    elif train.hours is not None:
        numbers = f"{train.hours:g}·3,600 // {plan['time']['step_s']:.6g}"
        yield Line("steps", "hours·3,600 // seconds of a step", numbers, steps)
    yield from _tokens(plan)


def _tokens(plan: Plan) -> Iterator[Line]:
    data, per_step = plan["data"], plan["batch"]["tokens_per_step"]
    if "tokens_seen" not in data:
        return
    seen = data["tokens_seen"]
    yield Line("tokens seen", "steps·tokens in a step", f"{data['steps']:,}·{per_step:,}", f"{seen:,}")
    if "repeats_per_token" in data:
        repeats = f"{data['repeats_per_token']:,.4g} times"
        yield Line("each token seen", "tokens seen / tokens", f"{seen:,} / {data['tokens']:,}", repeats)
    if "tokens_per_parameter" in data:
        numbers = f"{data['tokens']:,} / {plan['parameters']['total']:,}"
        yield Line("tokens a parameter", "tokens / parameters", numbers, f"{data['tokens_per_parameter']:.4g}")


def _batch(plan: Plan) -> Iterator[Line]:
    batch = plan["batch"]
    devices = (("·devices", f"·{batch['devices']}")) if "devices" in batch else ("", "")
    yield Line(
        "batch_size",
        f"micro_batch_size·gradient_accumulation_steps{devices[0]}",
        f"{batch['micro_batch_size']:,}·{batch['gradient_accumulation_steps']:,}{devices[1]}",
        f"{batch['batch_size']:,}",
    )


def _memory(architecture: Architecture, way: Execution, plan: Plan) -> Iterator[Line]:
    """State as numbers times bytes of each; what lives and dies within a step as tokens at once times bytes of each;
    workspaces, which follow neither, as bytes."""
    parts, moment = plan["memory_gib"]["by_component"], plan["memory_gib"]["at"]
    tokens = way.micro_batch_size * (way.length + way.source_length) * way.beams
    trained = state.trained(architecture, way)
    moved, wide_gradients = sum(weight.size for weight in trained), state.weight_bytes(trained[0], way)
    kept = sum(weight.size for weight in state.weights(architecture)) + (moved if way.lora.rank is not None else 0)
    for name, gib in parts.items():
        if name in ("workspace", "update"):
            yield Line(name, "bytes / 2³⁰", f"{gib * units.GIB:,.0f} / 2^30", f"{gib:.3f} GiB")
            continue
        wide = {"gradients": wide_gradients, "copies": 2}.get(name)
        what, count = "tokens at once", float(tokens)
        if wide is not None:
            what, count = "numbers that have one", gib * units.GIB / wide
        elif name in ("weights", "optimizer"):
            what, count = ("numbers, padding too", kept) if name == "weights" else ("numbers trained", moved)
        each = gib * units.GIB / count
        yield Line(name, f"{what}·bytes of each / 2³⁰", f"{count:,.0f}·{each:,.8g} / 2^30", f"{gib:.3f} GiB")
    numbers = plus(f"{gib:.3f}" for gib in parts.values())
    yield Line("tensors", f"their sum, when most is there: {moment}", numbers, f"{sum(parts.values()):.3f} GiB")


def _time(plan: Plan) -> Iterator[Line]:
    devices, flops = plan["batch"].get("devices", 1), plan["flops"]
    peak = devices * plan["device"].get("peak_flops_per_second", 0)
    of_all = " of all devices" * (devices > 1)
    if peak and "total" in flops:
        yield Line(
            "the least it can take",
            "FLOPs of the run / peak" + of_all,
            f"{units.flops(flops['total'])} / {units.flops(peak)}/s",
            units.duration(flops["total"] / peak),
        )
    if "time" not in plan:
        return
    time, per_step = plan["time"], plan["batch"]["tokens_per_step"]
    source = plan["batch"].get("source_tokens_per_step", 0)
    if "by_part" in time:
        parts = {name: seconds for name, seconds in time["by_part"].items() if seconds}
        numbers = plus(f"{seconds:.4g}" for seconds in parts.values())
        yield Line("a step", " + ".join(parts), numbers, f"{time['step_s']:.4g} s")
    yield Line(
        "tokens a second",
        "tokens in a step / step time" if not source else "tokens in a step, the source's too / step time",
        f"{per_step + source:,} / {time['step_s']:.4g} s",
        f"{time['tokens_per_second']:,.0f}",
    )
    if "mfu" in time:
        yield Line(
            "MFU",
            "FLOPs of a step / step time / peak" + of_all,
            f"{units.flops(flops['per_step'])} / {time['step_s']:.4g} s / {units.flops(peak)}/s",
            f"{time['mfu']:.1%}",
        )
    if "hours" in time:
        work = plan["data"]["steps"] * time["step_s"] / 3600
        yield Line(
            "the run",
            "steps·step time + evaluations",
            f"{plan['data']['steps']:,}·{time['step_s']:.4g} s + {max(0.0, time['hours'] - work) * 3600:.4g} s",
            units.duration(time["hours"] * 3600),
        )
