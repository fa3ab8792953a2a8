"""docs/by_hand.md: the planner's column is what the planner says today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ganeum.config import load
from ganeum.config.change import change
from ganeum.hardware import look
from ganeum.hardware.card import card
from ganeum.plan import memory, parameters
from ganeum.plan.architecture import find, ours
from ganeum.plan.closed_form import plan
from ganeum.plan.question import named
from ganeum.plan.question.use import read

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


def fits(**wanted: str) -> dict[str, str]:
    """The row of docs/what_fits.md, which a test of its own holds to the planner, with these cells."""
    text = (ROOT / "docs" / "what_fits.md").read_text(encoding="utf-8")
    header: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "model":
            header = cells
        elif header and len(cells) == len(header):
            row = dict(zip(header, cells, strict=True))
            if wanted.items() <= row.items():
                return row
    raise AssertionError(wanted)


@pytest.mark.parametrize(
    ("figure", "model", "how"),
    [
        ("CodeGen 350M, plain", "codegen-350M-mono", "plain"),
        ("CodeGen 350M, with checkpointing", "codegen-350M-mono", "checkpointing"),
        ("phi-1-small 350M, plain", "phi-1-small", "plain"),
        ("phi-1 1.3B, plain", "phi-1", "plain"),
        ("phi-1 1.3B, with checkpointing", "phi-1", "checkpointing"),
        ("phi-1 1.3B, 8-bit state too", "phi-1", "8-bit state too"),
        ("phi-1 1.3B, ZeRO-2 offload", "phi-1", "ZeRO-2 offload"),
        ("Replit 2.7B, 8-bit state too", "replit-code-v1-3b", "8-bit state too"),
        ("Replit 2.7B, ZeRO-2 offload", "replit-code-v1-3b", "ZeRO-2 offload"),
        ("StarCoder 15.5B, plain", "starcoder", "plain"),
        ("CodeGen 16.1B, plain", "codegen-16B-mono", "plain"),
    ],
)
def test_six_models_in_16_gb(figure: str, model: str, how: str) -> None:
    """GiB, to 5 %, and verdict as in the table of what fits."""
    row, (gib, verdict) = fits(model=model, how=how), said("Six models", figure).split(" GiB, ")
    assert float(gib) == pytest.approx(float(row["GiB"]), rel=0.05)
    assert verdict.startswith({"yes": "fits", "no": "does not", "perhaps": "perhaps"}[row["fits"]])


def test_the_model_of_100m() -> None:
    """54.7M tied, 71.1M untied, and 53 sequences of 1,024 tokens at once and the hours of 2B tokens, to 5 %."""
    shape = {"n_layer": 12, "n_head": 8, "n_embd": 512, "vocab_size": 32_000, "block_size": 1024}
    settings = {f"model.{key}": value for key, value in shape.items()}
    config = change(load(ROOT / "configs" / "exp_v100" / "test_run.yaml"), settings)
    for tied, figure in ((True, "in all, tied"), (False, "in all, untied")):
        architecture = ours.architecture(change(config, {"model.tie_embeddings": tied}).model)
        assert f"{parameters.of(architecture).total:,}" == said('The model of "100M"', figure)
    (block,) = architecture.blocks
    assert f"{sum(linear.size for linear in block.linears):,}" == said('The model of "100M"', "a layer")
    found = plan(change(config, {"train.max_iters": 100}), device=card("RTX 4080"), tokens=10**9)
    at_once = found["batch"]["largest_micro_batch"]
    assert float(said('The model of "100M"', "sequences at once")) == pytest.approx(at_once, rel=0.05)
    all_of_it = plan(
        change(config, {"train.tokens": 2e9, "train.max_iters": None}), device=card("RTX 4080"), tokens=10**9
    )
    hours = float(said('The model of "100M"', "time for 2B tokens").removesuffix(" h"))
    assert hours == pytest.approx(all_of_it["time"]["hours"], rel=0.05)


@pytest.mark.parametrize(
    ("figure", "column", "wanted"),
    [
        ("mT5, training, one sequence, AdamW", "GiB", ("mt5-large", "GeForce RTX 4090", "training, AdamW")),
        ("mT5, training, one sequence, Adafactor", "GiB", ("mt5-large", "GeForce RTX 4090", "training, Adafactor")),
        ("mT5, inference, 4 beams", "GiB", ("mt5-large", "Tesla V100 SXM2 16GB", "inference, 4 beams")),
        ("T5, training, 4 sequences", "GiB", ("t5-base", "Tesla V100 SXM2 16GB", "training, AdamW")),
        ("T5, training, 8 sequences", "GiB", ("t5-base", "A100 SXM4 40GB", "training, AdamW")),
        ("T5, inference, 8 texts, 4 beams", "GiB", ("t5-base", "Tesla V100 SXM2 16GB", "inference, 4 beams")),
        ("V100 16 GB, mT5, AdamW", "at once", ("mt5-large", "Tesla V100 SXM2 16GB", "training, AdamW")),
        ("V100 16 GB, T5, AdamW", "at once", ("t5-base", "Tesla V100 SXM2 16GB", "training, AdamW")),
        ("A100 40 GB, mT5, AdamW", "at once", ("mt5-large", "A100 SXM4 40GB", "training, AdamW")),
        ("A100 40 GB, T5, AdamW", "at once", ("t5-base", "A100 SXM4 40GB", "training, AdamW")),
        ("RTX 3080 10 GB, mT5, AdamW", "at once", ("mt5-large", "GeForce RTX 3080 10GB", "training, AdamW")),
        ("RTX 4090, mT5, AdamW", "at once", ("mt5-large", "GeForce RTX 4090", "training, AdamW")),
        ("RTX 3080 10 GB, T5, AdamW", "at once", ("t5-base", "GeForce RTX 3080 10GB", "training, AdamW")),
    ],
)
def test_two_t5_models(figure: str, column: str, wanted: tuple[str, str, str]) -> None:
    """GiB, and sequences at once, to 5 % as in the table of what fits."""
    model, gpu, how = wanted
    row = fits(model=model, GPU=gpu, how=how)
    told = float(said("Batch sizes for two T5 models", figure).removesuffix(" GiB"))
    assert told == pytest.approx(float(row[column]), rel=0.05)


@pytest.mark.parametrize(("model", "name"), [("T5", "t5-base"), ("mT5", "mt5-large")])
def test_what_fp16_saves(model: str, name: str) -> None:
    """Of four sequences of 512 tokens in and 128 out, AdamW: a tenth and less, not half; GiB to 5 %."""
    architecture, gpu = find(name), card("V100 SXM2 16GB")

    def gib(precision: str) -> float:
        use = read(["source_length=512", "length=128", "batch_size=4", f"precision={precision}"])
        return memory.of(architecture, named.settled(architecture, use, gpu)).expected / 2**30

    half, full = gib("fp16"), gib("fp32")
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| fp16 saves, {model}, 4 sequences |"))
    cells = row.split(" | ")
    assert f"{1 - half / full:.0%}" == cells[2].replace(" ", "")
    told = [float(number) for number in re.findall(r"\d+\.\d", cells[3])[:2]]
    assert told == [pytest.approx(full, rel=0.05), pytest.approx(half, rel=0.05)]
