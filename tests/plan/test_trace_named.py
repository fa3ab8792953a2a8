"""Models by their names, traced: `ganeum plan NAME --exact`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ganeum.cli import main
from ganeum.hardware.card import card
from ganeum.plan import library
from ganeum.plan.architecture import find
from ganeum.plan.execution import Execution
from ganeum.plan.question.subject import Model
from ganeum.plan.question.use import read
from ganeum.plan.trace import exact, named

pytestmark = pytest.mark.slow

pytest.importorskip("transformers")

T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "d_model": 128,
    "d_ff": 512,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "d_kv": 32,
    "vocab_size": 1000,
    "decoder_start_token_id": 0,
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A directory with the config.json of a small T5."""
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text(json.dumps(T5))
    return tmp_path / "small"


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as end:
        main(["plan", *words, "--gpu", "A100 SXM4 40GB", "--exact", "--json"])
    assert not end.value.code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("purpose", ["training", "generation"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_is_traced_from_its_config(
    small: Path, capsys: pytest.CaptureFixture[str], purpose: str, tied: bool
) -> None:
    """Its weights are there in full, those of an output layer of its own too (mT5's, which transformers ties where it
    draws it), a training's gradients and state, and the closed form stands beside it."""
    (small / "config.json").write_text(json.dumps(T5 | {"tie_word_embeddings": tied}))
    found = planned(capsys, str(small), f"purpose={purpose}", "batch_size=8", "length=64", "source_length=128")
    memory = found["memory_gib"]
    assert found["method"] == "traced", memory.get("not_traced")
    weights = 4 * found["parameters"]["total"] / 2**30
    held = weights if purpose == "training" else weights / 2  # for writing they are kept in half precision
    assert memory["by_component"]["weights"] == pytest.approx(held, rel=0.02)
    ours = 32 * (2 if purpose == "training" else 1) / 1024  # cuBLAS's workspaces, as a run of ours has them
    assert memory["by_component"]["workspace"] >= ours
    assert 0 < memory["tensors"] - memory["by_component"]["workspace"] < 1.5 * memory["closed_form"]["tensors"]
    assert ("ganeum train takes its steps" in " ".join(memory["uncertain"])) == (purpose == "training")


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ({"zero_stage": 2}, "what lies on other devices or in the CPU's memory is DeepSpeed's, and is not traced"),
        ({"weights": "nf4"}, "weights in nf4 are another library's, and are not traced"),
        ({}, "the config.json of nobody/nothing is not here: a directory with it can be traced"),
    ],
)
def test_what_cannot_be_traced_keeps_its_plan(way: dict[str, Any], why: str) -> None:
    """The closed form answers, and the reason stands in it."""
    closed = library.plan("t5-small", gpu="A100 SXM4 40GB")
    found = named.refined(closed, "nobody/nothing", Execution(**way), card("A100 SXM4 40GB"))
    assert ("closed_form", why) == (found["method"], found["memory_gib"]["not_traced"])


def test_a_training_has_levers_and_what_fits(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run of ours has them: what each saves, by the keys that are typed for a model by its name, and how many fit
    at once, as far as they are looked for."""
    monkeypatch.setattr(exact, "longer_rows", lambda *_: ({"largest_length": 4_096}, []))
    chunk, half = ("train.loss_chunk", 128, "slower"), ("train.activation_checkpointing", "selective", "slower")
    monkeypatch.setattr(exact, "keeping", lambda *_: [chunk, half, ("train.optimizer", "adafactor", "another rate")])
    tiny, use = card("Tiny: 2GB, bf16 50 TFLOPS, bandwidth 500 GB/s"), ["length=64", "source_length=64", "batch_size=2"]
    model = Model(find(str(small)), read([*use, "activation_checkpointing=none"]), asked=str(small))
    found = model.exact(model.plan(tiny), tiny, explain=True)
    assert found["method"] == "traced", found["memory_gib"].get("not_traced")
    saved = {(one["key"], one["value"]): one["saves"] for one in found["memory_gib"]["levers"]}
    assert list(saved) == [("optimizer", "adafactor")], "a model by its name has no such key, or not that value"
    assert saved["optimizer", "adafactor"] > 0.001
    batch = found["batch"]
    told = batch["largest_micro_batch"], batch["one_more"], batch["largest_length"]
    assert told == (2 * exact.ENOUGH, "enough", 4_096)


@pytest.mark.parametrize("words", [["gpt2"], ["gpt2", "--purpose", "generation"]])
def test_what_cannot_be_probed_is_refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """Rather than left out without a word."""
    with pytest.raises(SystemExit) as end:
        main(["plan", *words, "--probe"])
    assert end.value.code
    assert "what is probed is a run of ours, by its config" in capsys.readouterr().err
