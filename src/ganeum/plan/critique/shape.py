"""The network's own sizes: a vocabulary that is most of it, widths that hardware does not take whole."""

from __future__ import annotations

from collections.abc import Iterator

from ganeum import units
from ganeum.config import sizes
from ganeum.plan.critique.facts import Facts, Warning

SHORT, LONGER = 128, 256  # tokens of context
MUCH = 0.4  # of all parameters
ALIGNED = 8  # numbers of two bytes: 16 bytes
TILE = 64  # queries and keys that a block of flash attention takes


def vocabulary(facts: Facts) -> Iterator[Warning]:
    """Tables that hold much of the parameters and learn little."""
    parts, total = facts.parameters.by_component, facts.parameters.total
    tables = parts["token_embedding"] + parts["head"]
    if tables < MUCH * total:
        return
    head = 2 * parts["token_embedding"] / facts.flops.forward_per_token
    advice = "a smaller vocabulary (ganeum prepare --vocab-size)"
    if not facts.config.model.tie_embeddings:
        advice = f"model.tie_embeddings=true: {units.count(parts['head'])} parameters less, or {advice}"
    yield Warning(
        "note",
        "most of the model is vocabulary" if tables > total / 2 else "much of the model is vocabulary",
        f"{units.count(tables)} of {units.count(total)} parameters and {head:.0%} of the arithmetic",
        advice,
    )


def short_context(facts: Facts) -> Iterator[Warning]:
    """A sentence or two, and nothing before it."""
    model = facts.config.model
    if model.block_size >= SHORT:
        return
    attention = facts.flops.attention_per_token  # grows with the context; the rest does not
    more = attention * (LONGER / model.block_size - 1) / facts.flops.forward_per_token
    yield Warning(
        "note",
        "the context is short",
        f"a token is predicted from the {model.block_size} before it at most, a sentence or two",
        f"model.block_size={LONGER}: {more:.1%} more arithmetic a token",
    )


def odd_widths(facts: Facts) -> Iterator[Warning]:
    """Rows of numbers that do not fill 16 bytes keep tensor cores waiting (NVIDIA, Matrix Multiplication Background
    User's Guide DU-09799-001, section 2.2)."""
    model = facts.config.model
    if facts.device.kind != "cuda" or facts.precision not in ("bf16", "fp16"):
        return
    widths = {
        "model.n_embd": model.n_embd,
        "the width of a head": sizes.head_dim(model),
        "model.intermediate_size": sizes.intermediate_size(model),
    }
    odd = {name: width for name, width in widths.items() if width % ALIGNED}
    if not odd:
        return
    up = -(-sizes.head_dim(model) // ALIGNED) * ALIGNED
    advice = [f"model.n_embd={up * model.n_head}" if model.head_dim is None else f"model.head_dim={up}"]
    if model.intermediate_size and model.intermediate_size % ALIGNED:
        advice.append(f"model.intermediate_size={-(-model.intermediate_size // ALIGNED) * ALIGNED}")
    yield Warning(
        "note",
        "widths that tensor cores do not take whole",
        f"{', '.join(f'{name} is {width:,}' for name, width in odd.items())}: no multiple of {ALIGNED}, so rows do not "
        "start where 16 bytes are read at a time (NVIDIA DU-09799-001, section 2.2)",
        " ".join(advice),
    )


def odd_context(facts: Facts) -> Iterator[Warning]:
    """Flash attention works in tiles of 64 tokens and more (Dao 2023, arXiv 2307.08691, section 3.3)."""
    length = facts.config.model.block_size
    if facts.device.kind != "cuda" or length < TILE or not length % TILE:
        return
    up = -(-length // TILE) * TILE
    share = 3 * facts.flops.attention_per_token / facts.flops.per_token
    more = share * ((up / length) ** 2 - 1)
    if more < 0.02:
        return
    yield Warning(
        "note",
        "a context that fills no whole number of tiles",
        f"flash attention computes tiles of {TILE} tokens: {length:,} cost as much as {up:,}, {more:.0%} of the step "
        "for nothing (Dao 2023, arXiv 2307.08691, section 3.3)",
        f"model.block_size={up} or {length // TILE * TILE}",
        lost=more,
    )


LOOKS = (vocabulary, short_context, odd_widths, odd_context)
