"""The plan of a run of somebody else's model: parts, rows, lengths, time, what fits, and every form of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from asked import typed

from ganeum.config import Config, load
from ganeum.config.change import change
from ganeum.hardware.card import card
from ganeum.hardware.device import Device
from ganeum.plan import architecture, execution, fastest, memory, micro_batch, parameters
from ganeum.plan.closed_form import plan
from ganeum.plan.critique import fit
from ganeum.plan.examples import rows_of
from ganeum.plan.lengths import lengths

CPU = Device("a CPU", "cpu", memory_gib=64, usable_gib=50)
SHAPES: dict[str, dict[str, Any]] = {
    "t5": {"d_model": 64, "d_kv": 16, "num_heads": 4, "d_ff": 128, "num_layers": 2, "vocab_size": 500},
    "mt5": {"d_model": 64, "d_kv": 16, "num_heads": 4, "d_ff": 96, "num_layers": 2, "vocab_size": 500},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "vocab_size": 500},
    "qwen3": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 96,
        "vocab_size": 500,
    },
}
# As `Examples.describe` tells of pairs: 1,000 of 40 + 10 tokens, rows of at most 96 × 24, a fifth of them padding.
TOLD = {
    "kind": "pairs",
    "examples": 1_000,
    "val_examples": 20,
    "targets": 10_000,
    "batching": "buckets",
    "largest_row": {"source": 96, "target": 24},
    "padding": {"share": 0.2, "rows_at_once": 8},
    "texts": {
        "sources": {"limit": 96, "cut": 12, "longest": 300, "tokens": 40_800},
        "targets": {"limit": 24, "cut": 0, "longest": 24, "tokens": 10_200},
    },
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path / "cache"))


def source(family: str = "t5", **more: Any) -> str:
    """A directory with a config.json alone."""
    directory = Path(f"{family}-{len(more)}")
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"model_type": family, **SHAPES.get(family, {}), **more}))
    return str(directory)


def config(family: str = "t5", **keys: Any) -> Config:
    base = change(Config(name="x"), {"model.source": source(family), "data.train": "a.jsonl", "train.max_iters": 10})
    return change(base, {"data.max_length": 96, "data.max_target_length": 24, "train.batch_size": 8, **keys})


@pytest.mark.parametrize("family", [*SHAPES, "t5, untied"])
def test_parameters_are_those_of_transformers_own_model(family: str) -> None:
    """Counted from config.json alone, beside the model that transformers builds of it."""
    torch, theirs = pytest.importorskip("torch"), pytest.importorskip("transformers")
    family, _, untied = family.partition(", ")
    shape = SHAPES[family] | ({"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"} if untied else {})
    built = theirs.AutoConfig.for_model(family, **shape)
    kind = theirs.AutoModelForSeq2SeqLM if built.is_encoder_decoder else theirs.AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(built)
    here = change(Config(), {"model.source": source(family, **built.to_dict())})
    counted = {id(p): p.numel() for p in model.parameters()}
    assert sum(counted.values()) == parameters.of(architecture.of(here)).total


@pytest.mark.parametrize(
    ("family", "shape", "most"),
    [
        ("gemma", {**SHAPES["qwen3"], "num_key_value_heads": 1}, 0.01),
        ("opt", {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 256}, 0.01),
        ("bart", {"d_model": 64, "encoder_layers": 2, "decoder_layers": 3}, 0.25),
    ],
)
def test_a_type_that_nobody_described_is_counted_roughly(family: str, shape: dict[str, Any], most: float) -> None:
    """As its kin with the same sizes, and the plan says so; by its name alone it stays unknown."""
    torch, theirs = pytest.importorskip("torch"), pytest.importorskip("transformers")
    built = theirs.AutoConfig.for_model(family, **{"vocab_size": 1_000} | shape)
    kind = theirs.AutoModelForSeq2SeqLM if built.is_encoder_decoder else theirs.AutoModelForCausalLM
    with torch.device("meta"):
        own = sum({id(p): p.numel() for p in kind.from_config(built).parameters()}.values())
    here = config(**{"model.source": source(family, **built.to_dict())})
    assert parameters.of(architecture.of(here)).total == pytest.approx(own, rel=most)
    note = f"models of type {family} are not known part by part: counted as a "
    assert plan(here, device=CPU)["model"]["note"].startswith(note)


def test_dropout_is_the_model_s_own_unless_said() -> None:
    """null leaves T5's 0.1; a number, 0 too, takes its place."""
    assert 0.1 == architecture.of(config()).dropout
    assert 0.0 == architecture.of(config(**{"model.dropout": 0.0})).dropout


@pytest.mark.parametrize(
    ("family", "keys", "rows"),
    [
        ("t5", {}, (96, 24)),
        ("gpt2", {"data.kind": "texts"}, (0, 96)),
        ("gpt2", {"data.kind": "pairs"}, (0, 120)),
    ],
)
def test_memory_is_planned_for_the_longest_that_examples_may_be(
    family: str, keys: dict[str, Any], rows: tuple[int, int]
) -> None:
    """Two streams of a model with an encoder; a pair is one row of a model without."""
    way = execution.of(config(family, **keys), CPU, 2)
    assert rows == (way.source_length, way.length)


def test_what_was_told_of_the_examples_makes_rows_and_epochs() -> None:
    """50 tokens an example and a fifth of padding: rows of 50 × 12.5; 1,000 examples by 8 are 125 steps."""
    rows = rows_of(config(), encoder_decoder=True, told={**TOLD, "tokens": 50_000})
    assert (96, 24) == (rows.source, rows.target)
    assert (50.0, 12.5) == (pytest.approx(rows.usual_source), pytest.approx(rows.usual_target))
    assert (125, 50_000, 1_000) == (rows.steps_per_epoch(config()), rows.tokens, rows.held_out)
    by_tokens = config(**{"train.batch_tokens": 2_000})
    assert (25, 40) == (rows.steps_per_epoch(by_tokens), rows.sequences(by_tokens))


def test_lengths_of_examples() -> None:
    """Tokens of a step are those of an epoch over its steps; unknown, what a batch can have at most."""
    known = lengths(config(**{"train.epochs": 2, "train.max_iters": None}), 50_000, steps_per_epoch=125)
    assert (250, 400, 100_000, 2.0) == (known.steps, known.tokens_per_step, known.tokens_seen, known.repeats_per_token)
    assert 8 * (96 + 24) == lengths(config(), None).tokens_per_step
    assert 8 * 96 == lengths(config("gpt2", **{"data.kind": "texts"}), None).tokens_per_step
    assert 2_000 == lengths(config(**{"train.batch_tokens": 2_000}), 50_000, steps_per_epoch=25).tokens_per_step


def test_the_plan_of_a_run_holds_its_examples() -> None:
    """Time and FLOPs by usual rows, memory by the largest, tokens without padding."""
    found = plan(config(), device=card("RTX 4090"), tokens=50_000, steps_per_epoch=125, data=TOLD)
    assert {"source": 50, "target": 12} == found["data"]["usual_row"]
    assert (1_000, 125, 10, 4_000) == tuple(
        found["data"][key] for key in ("examples", "steps_per_epoch", "steps", "tokens_seen")
    )
    assert (24, 96) == (found["model"]["length"], found["model"]["source_length"])
    assert 400 == found["batch"]["tokens_per_step"]
    assert found["time"]["tokens_per_second"] == pytest.approx(400 / found["time"]["step_s"])
    assert found["flops"]["per_token"] == round(found["flops"]["per_step"] / 400)
    assert "loss" not in found
    shorter = plan(config(), device=card("RTX 4090"))
    assert shorter["flops"]["per_step"] > found["flops"]["per_step"]
    assert "tokens" not in shorter["data"]


def test_a_cpu_gets_no_more_tokens_at_once_than_keep_it_busy() -> None:
    """4,096 of both streams together: 32 rows of 96 + 24."""
    settings, _ = fastest.choose(config(**{"train.batch_size": 512}), CPU)
    assert 32 == settings["train.micro_batch_size"]
    evaluated, _ = micro_batch.choose_for_evaluation(config(**{"train.micro_batch_size": 8}), CPU)
    assert 32 == evaluated


def test_no_logits_are_planned_beyond_a_chunk() -> None:
    """The Trainer's step holds every logit and its logarithm; ours a chunk of rows."""
    long = {"data.max_target_length": 512, "train.loss_chunk": 64, "train.batch_size": 32}
    here = config(**long, **{"model.source": source(vocab_size=5_000)})
    ours, way = architecture.of(here), execution.of(here, CPU, 32)
    theirs = architecture.find(here.model.source or "")
    assert memory.of(ours, way).parts.get("logits", 0.0) < memory.of(theirs, way).parts["logits"] / 5


def test_what_cannot_fit_is_refused_with_what_would_help() -> None:
    """mT5-large with AdamW in 16 GB: offload, Adafactor, adapters; nothing of blocks or a context: it has none."""
    here = config(**{"model.source": "google/mt5-large", "data.max_length": 512, "data.max_target_length": 128})
    device = card("Tesla V100 SXM2 16GB")
    assert fit.impossible(here, device) is not None
    found = plan(here, device=device)["warnings"][0]
    assert ("error", "it does not fit into the memory of Tesla V100 SXM2 16GB") == (found["severity"], found["what"])
    assert [line.split()[0] for line in found["try"].splitlines()] == [
        "train.optimizer_offload=true",
        "train.optimizer=adafactor",
        "train.lora.rank=16",
    ]


def test_shorter_examples_are_a_way_out() -> None:
    """Where activations are what does not fit, both lengths are halved until they do."""
    device = Device("a CPU", "cpu", memory_gib=1, usable_gib=0.55)
    long = {"data.max_length": 4_096, "data.max_target_length": 512, "train.lora.rank": 4}
    advice = plan(config(**long), device=device)["warnings"][0]["try"]
    assert any(one.startswith("data.max_length=") and "longer examples are cut" in one for one in advice.splitlines())


def test_a_rate_that_trained_weights_do_not_stand_is_told() -> None:
    """1e-3 with AdamW on weights that know something; not on fresh ones, adapters or Adafactor."""
    what = "the learning rate is high for weights that are trained already"
    for more, told in (
        ({}, True),
        ({"train.learning_rate": 1e-4}, False),
        ({"model.fresh": True}, False),
        ({"train.lora.rank": 4}, False),
        ({"train.optimizer": "adafactor"}, False),
    ):
        warnings = plan(config(**more), device=CPU)["warnings"]
        assert told == any(warning["what"] == what for warning in warnings), more


YAML = """\
small:
  training: {per_device_train_batch_size: 2, gradient_accumulation_steps: 4, max_steps: 10}
  inference: {batch_size: 2}
"""


def test_a_run_of_a_source_is_planned_as_it_is_typed(capsys: pytest.CaptureFixture[str]) -> None:
    """The page, JSON, the derivation, the Trainer's arguments, DeepSpeed's file, and what else it takes."""
    Path("a.yaml").write_text(YAML)
    asked = ("a.yaml", "--config-section", "small", f"model.source={source()}", "data.train=a.jsonl")
    asked = (*asked, "--gpu", "RTX 4090")
    status, page, _ = typed(*asked, capsys=capsys)
    assert 0 == status
    for said in ("a-small  training, t5, 4 layers × 64, 512 tokens in, 128 out", "examples: a.jsonl was never opened"):
        assert said in page
    found = json.loads(typed(*asked, "--json", capsys=capsys)[1])
    assert (8, 2, 4) == tuple(
        found["batch"][key] for key in ("batch_size", "micro_batch_size", "gradient_accumulation_steps")
    )
    derived = typed(*asked, "--explain", capsys=capsys)[1]
    assert f"{found['flops']['per_step']:,} / {8 * 640:,}" in derived
    emitted = yaml.safe_load(typed(*asked, "--emit", "hf", capsys=capsys)[1])["a-small"]
    assert 2 == emitted["training"]["per_device_train_batch_size"]
    assert 2 == emitted["inference"]["batch_size"]  # as the file says
    filled = yaml.safe_load(typed(*asked, "sample.at_once=auto", "--emit", "hf", capsys=capsys)[1])["a-small"]
    assert filled["inference"]["batch_size"] > 2
    zero = json.loads(typed(*asked, "--emit", "deepspeed", capsys=capsys)[1])
    assert 8 == zero["train_batch_size"]
    Path("again.yaml").write_text(typed(*asked, "--emit", "ganeum", capsys=capsys)[1])
    assert load("again.yaml").model.source == source()
    writing = json.loads(typed(*asked, "--purpose", "generation", "--json", capsys=capsys)[1])
    assert (128, 512) == (writing["model"]["length"], writing["model"]["source_length"])


def test_the_page_shows_what_was_cut_and_how_rows_usually_are() -> None:
    """A person reads how many examples there are, how many were cut, and what a row is like."""
    from ganeum.plan.page.render import Page

    shown = Page(plan(config(), device=CPU, tokens=50_000, steps_per_epoch=125, data=TOLD)).markdown()
    for said in (
        "examples in a.jsonl, and 20 held out",
        "| 12 | sources longer than 96 tokens are cut; the longest has 300 |",
        "| 50 × 12 | tokens in a row as it usually is, padding included (source × target) |",
        "| 125 | steps in an epoch |",
    ):
        assert said in shown.replace("|  | ", "| ").replace("| **Data** ", "")


def test_what_shapes_grow_a_process_by_may_be_nothing() -> None:
    """180 MiB are kept free for them, and a run that never takes them is within what was planned."""
    needed = memory.of(architecture.of(config()), execution.of(config(), CPU, 8))
    assert (190 + 180) * 2**20 == needed.framework
    assert 190 / 2 * 2**20 == needed.framework_low
    adapted = execution.of(config(**{"train.lora.rank": 4}), CPU, 8)
    assert needed.framework == memory.of(architecture.of(config()), adapted).framework  # transformers is there already
