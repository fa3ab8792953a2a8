"""Each figure of a plan derived line by line, with the numbers put in: arithmetic that anyone can check by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ganeum import units
from ganeum.config import sizes
from ganeum.config.schema import Config
from ganeum.plan import parameters


@dataclass(frozen=True)
class Line:
    """``what`` = ``formula`` = ``numbers`` = ``result``; the formula says what the numbers are."""

    what: str
    formula: str
    numbers: str
    result: str


def explain(config: Config, plan: dict[str, Any]) -> str:
    """The derivation of ``plan``, which was made from ``config``, as plain text in sections.

    FLOPs are counted as :mod:`ganeum.plan.flops` argues.
    """
    sections = {
        "Parameters": [*_parameters(config, plan)],
        "FLOPs": [*_flops(config, plan)],
        "Length": [*_length(config, plan)],
        "Batch": [*_batch(plan)],
        "Time": [*_time(plan)],
    }
    return "\n\n".join(f"{title}\n{_aligned(lines)}" for title, lines in sections.items() if lines)


def _aligned(lines: list[Line]) -> str:
    wide = [max(len(getattr(line, column)) for line in lines) for column in ("what", "formula", "numbers")]
    return "\n".join(
        f"  {line.what:<{wide[0]}}  {line.formula:<{wide[1]}}  {line.numbers:<{wide[2]}}  = {line.result}".rstrip()
        for line in lines
    )


def _parameters(config: Config, plan: dict[str, Any]) -> Iterator[Line]:
    model, counts = config.model, plan["parameters"]["by_component"]
    V, C, T, L = f"{plan['model']['vocab_size']:,}", f"{model.n_embd:,}", f"{model.block_size:,}", f"{model.n_layer}"
    qkv_bias = model.bias if model.qkv_bias is None else model.qkv_bias
    biases = [("3·C", f"3·{C}")] * qkv_bias + [("C", C)] * model.bias
    attention = "".join(f" + {symbol}" for symbol, _ in biases), "".join(f" + {number}" for _, number in biases)
    mlp = (" + 5·C", f" + 5·{C}") if model.bias else ("", "")
    norm = ("2·C", f"2·{C}") if model.bias else ("C", C)

    def line(name: str, formula: str, numbers: str) -> Line:
        return Line(name, formula, numbers, f"{counts[name]:,}")

    yield line("token_embedding", "vocab_size·C", f"{V}·{C}")
    if model.style == "gpt2":
        yield line("position_embedding", "block_size·C", f"{T}·{C}")
        if model.intermediate_size is None:
            inside = "4·C²", f"4·{C}²"
        else:
            inside = "C·intermediate_size", f"{C}·{model.intermediate_size:,}"
            mlp = (" + intermediate_size + C", f" + {model.intermediate_size:,} + {C}") if model.bias else mlp
        yield line("attention", f"n_layer·(3·C² + C²{attention[0]})", f"{L}·(3·{C}² + {C}²{attention[1]})")
        yield line("mlp", f"n_layer·({inside[0]} + {inside[0]}{mlp[0]})", f"{L}·({inside[1]} + {inside[1]}{mlp[1]})")
        yield line("norms", f"(2·n_layer + 1)·{norm[0]}", f"(2·{L} + 1)·{norm[1]}")
    else:
        H, K, D = f"{model.n_head}", f"{sizes.n_kv_head(model)}", f"{sizes.head_dim(model)}"
        yield line("attention", "n_layer·(2·n_head + 2·n_kv_head)·head_dim·C", f"{L}·(2·{H} + 2·{K})·{D}·{C}")
        yield line("mlp", "n_layer·3·C·intermediate_size", f"{L}·3·{C}·{sizes.intermediate_size(model):,}")
        yield line("norms", "(2·n_layer + 1)·C + n_layer·2·head_dim", f"(2·{L} + 1)·{C} + {L}·2·{D}")
    if model.tie_embeddings:
        yield line("head", "tied: the token embedding again", "")
    else:
        yield line("head", "vocab_size·C", f"{V}·{C}")
    parts = " + ".join(f"{count:,}" for count in counts.values() if count)
    yield Line("total", "their sum (C is n_embd)", parts, f"{plan['parameters']['total']:,}")


def _flops(config: Config, plan: dict[str, Any]) -> Iterator[Line]:
    model, flops, V, C = config.model, plan["flops"], plan["model"]["vocab_size"], config.model.n_embd
    tokens, forward = plan["batch"]["tokens_per_step"], flops["per_token"] // 3
    attention = flops["attention_per_token"] // 3
    if model.style == "gpt2" and model.intermediate_size is None:
        block = "12·C²", f"12·{C:,}²"
    else:
        block = "matrices of a block", f"{sum(a * b for a, b in parameters.block_matrices(model).values()):,}"
    queries = ("C", f"{C:,}") if model.style == "gpt2" else ("n_head·head_dim", f"{sizes.qkv_widths(model)[0]:,}")
    yield Line(
        "matrices, a token",
        f"2·(n_layer·{block[0]} + vocab_size·C)",
        f"2·({model.n_layer}·{block[1]} + {V:,}·{C:,})",
        f"{forward - attention:,}",
    )
    yield Line(
        "attention, a token",
        f"n_layer·4·block_size·{queries[0]}",
        f"{model.n_layer}·4·{model.block_size:,}·{queries[1]}",
        f"{attention:,}",
    )
    yield Line("forward, a token", "their sum", f"{forward - attention:,} + {attention:,}", f"{forward:,}")
    yield Line("forward and backward", "3·forward", f"3·{forward:,}", f"{flops['per_token']:,}")
    yield Line(
        "a step",
        "· tokens in a step",
        f"{flops['per_token']:,}·{tokens:,}",
        units.flops(flops["per_step"]),
    )
    if "total" in flops:
        steps = plan["data"]["steps"]
        yield Line("the run", "· steps", f"{units.flops(flops['per_step'])}·{steps:,}", units.flops(flops["total"]))


def _length(config: Config, plan: dict[str, Any]) -> Iterator[Line]:
    data, train, per_step = plan["data"], config.train, plan["batch"]["tokens_per_step"]
    yield Line(
        "tokens in a step",
        "batch_size·block_size",
        f"{train.batch_size:,}·{config.model.block_size:,}",
        f"{per_step:,}",
    )
    if "windows" in data:
        yield Line(
            "windows",
            "(tokens - block_size - 1) // stride + 1",
            f"({data['tokens']:,} - {config.model.block_size:,} - 1) // {data['stride']:,} + 1",
            f"{data['windows']:,}",
        )
        yield Line(
            "steps in an epoch",
            "windows // batch_size",
            f"{data['windows']:,} // {train.batch_size:,}",
            f"{data['steps_per_epoch']:,}",
        )
    if "steps" not in data:
        return
    if train.max_iters is not None:
        yield Line("steps", "train.max_iters", f"{train.max_iters:,}", f"{data['steps']:,}")
    elif train.tokens is not None:
        yield Line("steps", "tokens / tokens in a step", f"{train.tokens:,.0f} / {per_step:,}", f"{data['steps']:,}")
    elif train.epochs is not None:
        yield Line(
            "steps", "epochs·steps in an epoch", f"{train.epochs:g}·{data['steps_per_epoch']:,}", f"{data['steps']:,}"
        )
    elif train.hours is not None:
        yield Line(
            "steps",
            "hours / step time",
            f"{train.hours:g}·3,600 / {plan['time']['step_s']:.4g} s",
            f"{data['steps']:,}",
        )
    yield Line("tokens seen", "steps·tokens in a step", f"{data['steps']:,}·{per_step:,}", f"{data['tokens_seen']:,}")
    if "repeats_per_token" in data:
        yield Line(
            "each token seen",
            "tokens seen / tokens",
            f"{data['tokens_seen']:,} / {data['tokens']:,}",
            f"{data['repeats_per_token']:,.1f} times",
        )


def _batch(plan: dict[str, Any]) -> Iterator[Line]:
    batch = plan["batch"]
    yield Line(
        "batch_size",
        "micro_batch_size·gradient_accumulation_steps",
        f"{batch['micro_batch_size']:,}·{batch['gradient_accumulation_steps']:,}",
        f"{batch['batch_size']:,}",
    )


def _time(plan: dict[str, Any]) -> Iterator[Line]:
    flops, peak = plan["flops"], plan["device"].get("peak_flops_per_second")
    if peak and "total" in flops:
        yield Line(
            "the least it can take",
            "FLOPs of the run / device's peak",
            f"{units.flops(flops['total'])} / {units.flops(peak)}/s",
            units.duration(flops["total"] / peak),
        )
    if "time" not in plan:
        return
    time = plan["time"]
    yield Line(
        "tokens a second",
        "tokens in a step / step time",
        f"{plan['batch']['tokens_per_step']:,} / {time['step_s']:.4g} s",
        f"{time['tokens_per_second']:,.0f}",
    )
    if "mfu" in time:
        yield Line(
            "MFU",
            "tokens a second·FLOPs a token / peak",
            f"{time['tokens_per_second']:,.0f}·{flops['per_token']:,} / {units.flops(peak)}/s",
            f"{time['mfu']:.1%}",
        )
    if "hours" in time:
        yield Line(
            "the run",
            "steps·step time",
            f"{plan['data']['steps']:,}·{time['step_s']:.4g} s",
            units.duration(time["hours"] * 3600),
        )
