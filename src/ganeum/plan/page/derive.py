"""A model's parameters and FLOPs derived line by line from its parts, with the numbers put in: checkable by hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ganeum import units
from ganeum.config.schema import Lora
from ganeum.plan import flops as counting
from ganeum.plan import parameters as counted_by
from ganeum.plan.architecture.parts import Architecture, Attention, Block, Linear, Norm
from ganeum.plan.execution import Execution

WIDEST = 44  # a column of numbers is padded up to here; longer ones stick out


@dataclass(frozen=True)
class Line:
    """``what`` = ``formula`` = ``numbers`` = ``result``; the formula says what the numbers are."""

    what: str
    formula: str
    numbers: str
    result: str


def section(title: str, lines: Iterable[Line]) -> str:
    """The lines under a title, in columns; empty where there are none."""
    rows = [*lines]
    if not rows:
        return ""
    wide = [min(WIDEST, max(len(getattr(line, column)) for line in rows)) for column in ("what", "formula", "numbers")]
    aligned = (
        f"  {line.what:<{wide[0]}}  {line.formula:<{wide[1]}}  {line.numbers:<{wide[2]}}  = {line.result}".rstrip()
        for line in rows
    )
    return "\n".join([title, *aligned])


def plus(numbers: Iterable[int | str]) -> str:
    """``1,000 + 20``; 0 where there is nothing to add."""
    return " + ".join(number if isinstance(number, str) else f"{number:,}" for number in numbers) or "0"


def parameters(architecture: Architecture, lora: Lora | None = None) -> Iterator[Line]:
    """How :func:`ganeum.plan.parameters.of` comes to each of its figures: matrix by matrix, ``in·out`` and its bias."""
    found = counted_by.of(architecture, lora)
    parts = found.by_component

    def line(name: str, formula: str, numbers: str) -> Line:
        return Line(name, formula, numbers, f"{parts[name]:,}")

    tokens, *others = architecture.tables
    yield line(tokens.name, "vocab_size·width", f"{tokens.rows:,}·{tokens.width:,}")
    for table in others:
        yield line(table.name, "positions·width", f"{table.rows:,}·{table.width:,}")
    for block in architecture.blocks:
        stream = f"{block.stream}." if architecture.encoder_decoder else ""
        for name, linears in _groups(block):
            yield from (_matrix(stream, block, linear) for linear in linears)
            yield line(stream + name, "their sum", plus(block.count * linear.size for linear in linears))
    yield line("norms", "layers·norms·numbers of each, and the last", plus(_norms(architecture)))
    heads = architecture.blocks[0].attentions[0].heads
    for name, size in architecture.extra:
        yield line(name, "distances·heads, of all tables", f"{size // heads:,}·{heads:,}")
    yield _head(architecture, parts["head"])
    if lora and lora.rank is not None:
        sides = {
            block: sum(side.inputs + side.outputs for side in block.linears if counted_by.adapted(side, lora))
            for block in architecture.blocks
        }
        numbers = plus(f"{block.count}·{lora.rank}·{each:,}" for block, each in sides.items())
        yield line("adapters", "layers·rank·(in + out) of their matrices", numbers)
    yield Line("total", "their sum", plus(part for part in parts.values() if part), f"{found.total:,}")
    blocks = [part for name, part in parts.items() if _inside(name, architecture)]
    yield Line("non_embedding", "blocks and norms", plus(blocks), f"{found.non_embedding:,}")


def flops(architecture: Architecture, execution: Execution) -> Iterator[Line]:
    """How :func:`ganeum.plan.flops.of` comes to each of its figures: of a token, or of a sequence where there are two
    streams, whose lengths are T (the decoder's) and S."""
    found = counting.of(architecture, execution)
    per = _Per(execution, "sequence" if architecture.encoder_decoder else "token")
    for block in architecture.blocks:
        prefix = "encoder " if block.stream == "encoder" else ""
        yield per.line(f"{prefix}matrices", *_products(block, per), found.by_part[f"{prefix}matrices"])
        for attention in block.attentions:
            name = "cross attention" if attention.across else f"{prefix}attention"
            yield per.line(name, *_scores(block, attention, per), found.by_part[name])
    if "adapters" in found.by_part:
        yield per.line("adapters", *_adapters(architecture, per), found.by_part["adapters"])
    head = architecture.head
    yield per.line(
        "output layer",
        f"2·width·vocab_size{per.times('T')}",
        f"2·{head.inputs:,}·{head.outputs:,}{per.times(per.target)}",
        found.by_part["head"],
    )
    yield per.line("forward", "their sum", plus(per.of(part) for part in found.by_part.values()), found.forward)
    if execution.purpose == "training":
        yield from _backward(found, per)
        yield from _again(architecture, execution, per)
    yield from _steps(found, per)


class _Per:
    """What figures are given of: a token, or a sequence, in which each stream's tokens are factors."""

    def __init__(self, execution: Execution, thing: str) -> None:
        self.execution, self.thing = execution, thing
        self.beams = execution.beams if execution.purpose == "generation" else 1
        self.target, self.source = execution.length, execution.source_length
        self.parts = execution.length if thing == "token" else 1

    def of(self, flops: int) -> int:
        """FLOPs of a sequence → of the thing."""
        return flops // self.parts

    def times(self, factor: int | str) -> str:
        """``·factor`` where tokens are factors; beams are always."""
        beams = "" if self.beams == 1 else "·beams" if isinstance(factor, str) else f"·{self.beams}"
        number = factor if isinstance(factor, str) else f"{factor:,}"
        return (f"·{number}" if self.thing == "sequence" else "") + beams

    def line(self, what: str, formula: str, numbers: str, flops: int) -> Line:
        return Line(f"{what}, a {self.thing}", formula, numbers, f"{self.of(flops):,}")


def _groups(block: Block) -> Iterator[tuple[str, tuple[Linear, ...]]]:
    for attention in block.attentions:
        yield "cross_attention" if attention.across else "attention", attention.linears
    yield "mlp", block.mlp


def _matrix(stream: str, block: Block, linear: Linear) -> Line:
    bias = (" + out", f" + {linear.outputs:,}") if linear.bias else ("", "")
    numbers = f"{block.count}·({linear.inputs:,}·{linear.outputs:,}{bias[1]})"
    return Line(stream + linear.name, f"layers·(in·out{bias[0]})", numbers, f"{block.count * linear.size:,}")


def _norms(architecture: Architecture) -> Iterator[str]:
    """``12·2·(768 + 768)``: layers, norms of one kind in each, a scale and an offset."""
    for block in architecture.blocks:
        kinds = {norm.size: norm for norm in counted_by.norms_of(block)}
        for size, norm in kinds.items():
            alike = sum(other.size == size for other in counted_by.norms_of(block))
            yield f"{block.count}·{alike}·{_numbers(norm)}"
    yield from (_numbers(norm) for norm in architecture.norms)


def _numbers(norm: Norm) -> str:
    return f"({norm.width:,} + {norm.width:,})" if norm.bias else f"{norm.width:,}"


def _head(architecture: Architecture, count: int) -> Line:
    head = architecture.head
    bias = (" + vocab_size", f" + {head.outputs:,}") if head.bias else ("", "")
    if architecture.tied:
        formula = f"tied: the token embedding again{bias[0]}"
        return Line("head", formula, f"0{bias[1]}", f"{count:,}")
    return Line("head", f"width·vocab_size{bias[0]}", f"{head.inputs:,}·{head.outputs:,}{bias[1]}", f"{count:,}")


def _inside(component: str, architecture: Architecture) -> bool:
    tables = [table.name for table in architecture.tables]
    return component not in (*tables, "head", "adapters")


def _products(block: Block, per: _Per) -> tuple[str, str]:
    """``2·layers·numbers`` of a layer's matrices, and the tokens that they meet."""
    if block.stream == "encoder":
        own = sum(linear.weights for linear in block.linears)
        return "2·layers·numbers in a layer·S", f"2·{block.count}·{own:,}·{per.source:,}"
    across = [linear for linear, tokens in counting.products(block, 1, 0) if not tokens]
    own = sum(linear.weights for linear in block.linears if linear not in across)
    if not across:
        return f"2·layers·numbers in a layer{per.times('T')}", f"2·{block.count}·{own:,}{per.times(per.target)}"
    read = sum(linear.weights for linear in across)
    numbers = f"2·{block.count}·({own:,}·{per.target:,} + {read:,}·{per.source:,})"
    beams = ("·beams", f"·{per.beams}") if per.beams > 1 else ("", "")
    return f"2·layers·(numbers·T + keys' and values' across·S){beams[0]}", numbers + beams[1]


def _scores(block: Block, attention: Attention, per: _Per) -> tuple[str, str]:
    """Queries meet keys, and the weights meet values: two products, 4 operations a pair and number."""
    queries = f"{attention.heads}·{attention.head_dim}"
    if per.execution.purpose == "generation" and attention.causal:
        formula = f"layers·2·(T + 1)·heads·head_dim{per.times('T')}"
        return formula, f"{block.count}·2·{per.target + 1:,}·{queries}{per.times(per.target)}"
    if block.stream == "encoder":
        return "layers·4·S·heads·head_dim·S", f"{block.count}·4·{per.source:,}·{queries}·{per.source:,}"
    keys = ("S", per.source) if attention.across else ("T", per.target)
    formula = f"layers·4·{keys[0]}·heads·head_dim{per.times('T')}"
    return formula, f"{block.count}·4·{keys[1]:,}·{queries}{per.times(per.target)}"


def _adapters(architecture: Architecture, per: _Per) -> tuple[str, str]:
    rank, lora = per.execution.lora.rank, per.execution.lora
    terms: dict[str, int] = {}
    for block in architecture.blocks:
        for linear, tokens in counting.products(block, per.target * per.beams, per.source, per.beams):
            if counted_by.adapted(linear, lora):
                key = f"{block.count}" if per.of(tokens) == 1 else f"{block.count}·{per.of(tokens):,}"
                terms[key] = terms.get(key, 0) + linear.inputs + linear.outputs
    numbers = plus(f"{key}·{sides:,}" for key, sides in terms.items())
    tokens_each = "·tokens" if per.thing == "sequence" else ""
    return f"2·rank·layers{tokens_each}·(in + out)", f"2·{rank}·({numbers})"


def _backward(found: counting.Flops, per: _Per) -> Iterator[Line]:
    spared = per.of(2 * found.forward - found.backward)
    forward, both = per.of(found.forward), found.forward + found.backward
    if spared:
        what = "3·forward - what frozen matrices spare"
        yield per.line("forward and backward", what, f"3·{forward:,} - {spared:,}", both)
    else:
        yield per.line("forward and backward", "3·forward", f"3·{forward:,}", both)


def _again(architecture: Architecture, execution: Execution, per: _Per) -> Iterator[Line]:
    """Beside the rest: MFU leaves it out."""
    for block in architecture.blocks:
        works = [*counting.again(architecture, block, execution)]
        if works:
            stream = f" in the {block.stream}" if architecture.encoder_decoder else ""
            formula = f"layers·({' + '.join(name for name, _ in works)})"
            numbers = f"{block.count}·({plus(per.of(work) for _, work in works)})"
            yield per.line(f"computed again{stream}", formula, numbers, block.count * sum(work for _, work in works))


def _steps(found: counting.Flops, per: _Per) -> Iterator[Line]:
    both = found.forward + found.backward
    what = "a step" if found.backward else "all at once"
    total = f"{found.per_step:,} ({units.flops(found.per_step)})"
    if per.thing == "token":
        tokens = found.sequences * found.length
        yield Line(what, "a token's·tokens", f"{per.of(both):,}·{tokens:,}", total)
        return
    numbers = f"round({both:,} / {found.length:,})"
    yield Line("a token of the decoder", "a sequence's / T", numbers, f"{found.per_token:,}")
    yield Line(what, "a sequence's·sequences", f"{both:,}·{found.sequences:,}", total)
