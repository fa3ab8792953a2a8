"""docs/by_hand.md: the planner's column is what the planner says today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ganeum.config import load
from ganeum.config.change import change
from ganeum.hardware import look
from ganeum.plan import parameters
from ganeum.plan.architecture import ours
from ganeum.plan.closed_form import plan

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "by_hand.md").read_text(encoding="utf-8")
BOOK = load(ROOT / "configs" / "one_book.yaml", ["model.vocab_size=50257"])


def said(section: str, figure: str) -> str:
    """What the page says the planner says, in that section's row of that name."""
    text = re.split(r"^#+ ", PAGE.partition(f"# {section}\n")[2], flags=re.MULTILINE)[0]
    (row,) = (line for line in text.splitlines() if line.startswith(f"| {figure} |"))
    return row.split(" | ")[2]


def giga(number: float) -> str:
    return f"{number / 1e9:.1f} G" if number < 100e9 else f"{number / 1e9:.0f} G"


def tera(number: float) -> str:
    return f"{number / 1e12:.3g} T"


@pytest.mark.parametrize(
    ("figure", "length", "component"),
    [
        ("token embedding", 32, "token_embedding"),
        ("positions, 128 of them", 128, "position_embedding"),
        ("positions, 32 of them", 32, "position_embedding"),
        ("output layer", 32, "head"),
        ("in all, 128 positions", 128, None),
        ("in all, 32 positions", 32, None),
    ],
)
def test_parameters(figure: str, length: int, component: str | None) -> None:
    """By component, and in all with both contexts."""
    counted = parameters.of(ours.architecture(change(BOOK, {"model.block_size": length}).model))
    number = counted.by_component[component] if component else counted.total
    assert f"{number:,}" == said("Parameters", figure).removesuffix(" ")


def test_parameters_of_a_layer() -> None:
    """Matrix by matrix, and twelve layers of them without the norm behind the last."""
    architecture = ours.architecture(BOOK.model)
    (block,) = architecture.blocks
    sizes = {linear.name: linear.size for linear in block.linears}
    norms = sum(norm.size for norm in block.norms)
    assert f"{sizes['attention.qkv']:,}" == said("Parameters", "queries, keys and values, a layer")
    assert f"{sizes['attention.out']:,}" == said("Parameters", "output projection, a layer")
    assert f"{sizes['mlp.up'] + sizes['mlp.down']:,}" == said("Parameters", "feed-forward, a layer")
    assert f"{norms:,}" == said("Parameters", "norm, a layer")
    every = block.count * (sum(sizes.values()) + norms)
    assert f"{every:,}" == said("Parameters", "12 layers")


@pytest.mark.parametrize(
    ("section", "length"), [("A step of 128 × 128 tokens", 128), ("A step of 128 × 32 tokens, as it was trained", 32)]
)
def test_a_step(section: str, length: int) -> None:
    """Each product from the planner's description of a layer, and the sums from its plan."""
    config = change(BOOK, {"model.block_size": length})
    architecture = ours.architecture(config.model)
    (block,) = architecture.blocks
    tokens = 128 * length
    work = {linear.name: 2 * linear.weights * tokens for linear in block.linears}
    scores = 2 * length * tokens * block.attentions[0].queries
    attention, mlp = work["attention.qkv"] + work["attention.out"] + 2 * scores, work["mlp.up"] + work["mlp.down"]
    head = 2 * architecture.head.weights * tokens
    step = plan(config, device=look("cpu"), tokens=130_520)["flops"]["per_step"]
    assert 12 * (attention + mlp) + head == step / 3
    assert giga(work["attention.qkv"]) == said(section, "queries, keys and values, a layer")
    assert giga(work["attention.out"]) == said(section, "output projection, a layer")
    assert giga(attention) == said(section, "attention, a layer")
    assert giga(mlp) == said(section, "feed-forward, a layer")
    assert tera(step / 3) == said(section, "forward")
    assert tera(step) == said(section, "a step, forward and backward")
    if length == 128:
        assert giga(scores) == said(section, "queries times keys, a layer")
        assert giga(scores) == said(section, "weights times values, a layer")
        assert tera(12 * (attention + mlp)) == said(section, "12 layers")
        assert tera(head) == said(section, "output layer")
    else:
        assert f"{scores / 1e6:.0f}M" == said(section, "queries times keys, a layer")
        assert giga(work["mlp.up"]) == said(section, "768 → 3,072, a layer")
        assert giga(attention + mlp) == said(section, "a layer")
        assert giga(12 * (attention + mlp)) == said(section, "12 layers")
        assert giga(head) == said(section, "output layer")


def test_the_length() -> None:
    """Windows, steps, tokens and FLOPs of the whole run."""
    found = plan(BOOK, device=look("cpu"), tokens=130_520)
    data = found["data"]
    assert f"{data['windows']:,}" == said("Length", "windows")
    assert f"{data['steps_per_epoch']:,}" == said("Length", "steps in an epoch")
    assert f"{data['steps']:,}" == said("Length", "steps in 20 epochs")
    assert f"{data['tokens_seen']:,} in all" == said("Length", "tokens seen")
    assert f"{data['repeats_per_token']:.1f} times" == said("Length", "how often each token is seen")
    assert f"{found['flops']['total'] / 1e16:.2f} · 10¹⁶" == said("Length", "FLOPs in all")
    assert f"{data['tokens_seen'] / 34_414.43:.0f} tokens/s" == said("Length", "speed")
    assert f"{found['flops']['total'] / 34_414.43 / 1e9:.0f} GFLOP/s" in PAGE
