"""Memory that really runs out: before the run, in the middle of it, and where one sequence is too much."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import limited
import pytest
import torch
from safetensors.torch import load_file
from tiny_corpus import go, metrics

from ganeum.config import load
from ganeum.config.change import change
from ganeum.errors import RunError
from ganeum.hardware import Device
from ganeum.models import generate
from ganeum.record import RunDirectory
from ganeum.train import out_of_memory, trial, trouble
from ganeum.train.evaluate import ValidationSet
from ganeum.train.out_of_memory import Full

pytestmark = pytest.mark.slow

SHORT = ["train.micro_batch_size=auto", "max_iters=3", "eval_interval=3", "sample.interval=0", "log.interval=1"]
WIDE = [*SHORT, "model.n_embd=128", "model.block_size=256", "batch_size=16", "eval_tokens=1024"]
DEEP = [*SHORT, "model.n_layer=20", "model.n_embd=64", "model.n_head=4", "model.block_size=1024", "batch_size=2"]
DEEP += ["model.dropout=0", "eval_tokens=2048"]
LOST = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4194304 bytes.")


def same_weights(name: str, other: str, step: int = 3) -> bool:
    one, two = (load_file(f"results/{n}/checkpoints/step-{step:08d}/model.safetensors") for n in (name, other))
    return one.keys() == two.keys() and all(one[key].equal(two[key]) for key in one)


def losses(name: str) -> list[tuple[float, float]]:
    return [(line["loss"], line["grad_norm"]) for line in metrics(name)]


def chosen(name: str) -> dict[str, dict[str, Any]]:
    return {one["key"]: one for one in json.loads(Path(f"results/{name}/plan.json").read_text())["choices"]}


def test_an_estimate_that_is_wrong_is_found_out_before_the_start(yaml: Path) -> None:
    """Memory taken since the machine was looked at: smaller sizes are tried until one goes through; the run has no
    trouble, the plan says what was tried, and it is the run that one would have started at that size."""
    ended = limited.train(yaml, *WIDE, mib=220, when="looked")
    assert ended.status == 0, ended.error
    size = chosen("tiny")["train.micro_batch_size"]
    assert size["value"] in (1, 2, 4, 8)
    assert re.match(r"tried before the start: 16( and \d+)* at once ran out of memory \(.* refused\)", size["reason"])
    assert "Out of memory" not in ended.shown
    go(yaml, *WIDE, "name=plain", f"train.micro_batch_size={size['value']}")
    assert losses("tiny") == losses("plain")
    assert same_weights("tiny", "plain")


def test_memory_that_runs_out_in_a_run_halves_the_micro_batch(yaml: Path) -> None:
    """From the first step on: what follows is the run started at the smaller size, bit for bit, dropout included; it
    is said, recorded, and kept by a resumed run, which does not fail again."""
    ended = limited.train(yaml, *WIDE, "max_iters=1", mib=60, when=1)
    assert ended.status == 0, ended.error
    events = json.loads(Path("results/tiny/summary.json").read_text())["out_of_memory"]
    lowered = [(e["step"], e["before"], e["after"]) for e in events if e["key"] == "train.micro_batch_size"]
    assert lowered[0] == (1, 16, 8)
    size = lowered[-1][2]
    assert re.search(
        r"Out of memory at step 1 \([\d.]+ [KM]iB more were refused\)\. From here on 8 sequences at once instead of "
        r"16, 2 times a step instead of 1: the batch stays 16, and steps, learning rate and order of the data stay as "
        r"they were\.",
        ended.shown,
    )
    assert [line["micro_batch_size"] for line in metrics("tiny")] == [size]
    plain = ["name=plain", f"train.micro_batch_size={size}"]
    go(yaml, *WIDE, *plain, "max_iters=1")
    go(yaml, *WIDE, *plain)
    _, shown = go(yaml, *WIDE)
    assert f"({16 // size} × {size} at once)" in shown
    assert "Out of memory" not in shown
    assert losses("plain") == losses("tiny")
    assert same_weights("tiny", "plain")


def test_where_one_sequence_is_too_much_what_is_suggested_helps(yaml: Path) -> None:
    """Every line of the error, typed as it stands, trains under the same limit."""
    plain = [*DEEP, "train.activation_checkpointing=none"]
    ended = limited.train(yaml, *plain, mib=230, when="looked")
    assert ended.status == 2, ended.shown
    text = ended.error[ended.error.index("RunError") :]
    assert text.startswith("RunError: one sequence of 1,024 tokens does not fit into the memory of ")
    assert not Path("results/tiny").exists()
    table = text.partition("  try    ")[2].splitlines()
    levers = [re.split(r"  +\d", line.strip())[0].split() for line in table if "GiB: " in line]
    assert ["train.activation_checkpointing=whole"] in levers
    for number, settings in enumerate(levers):
        typed = limited.train(yaml, *plain, *settings, f"name=lever{number}", mib=230, when="looked")
        assert typed.status == 0, (settings, typed.error)


def test_where_one_sequence_is_too_much_it_is_computed_twice(yaml: Path) -> None:
    """With checkpointing to choose, the next level is tried before the start, and the plan says why."""
    ended = limited.train(yaml, *DEEP, mib=230, when="looked")
    assert ended.status == 0, ended.error
    level = chosen("tiny")["train.activation_checkpointing"]
    assert level["value"] in ("selective", "whole")
    assert re.match(
        r"tried before the start: one sequence ran out of memory with (none|selective) \(.* refused\)", level["reason"]
    )


def test_what_fits_is_not_refused(yaml: Path) -> None:
    """The same with the limit in force from the start: the plan lets it go, because it may fit, and it does."""
    ended = limited.train(yaml, *DEEP, mib=230)
    assert ended.status == 0, ended.error


def test_one_sequence_that_is_too_much_in_a_run_is_computed_twice(yaml: Path) -> None:
    """In the middle of the run: first one at once, then more computed twice; said, recorded, kept by a resumed run, and
    bit for bit the run that had the room."""
    ended = limited.train(yaml, *DEEP, "max_iters=1", mib=120, when=1)
    assert ended.status == 0, ended.error
    events = json.loads(Path("results/tiny/summary.json").read_text())["out_of_memory"]
    assert [(e["key"], e["before"], e["after"]) for e in events][:2] == [
        ("train.micro_batch_size", 2, 1),
        ("train.activation_checkpointing", "none", "selective"),
    ]
    assert re.search(
        r"Out of memory at step 1 \([\d.]+ [KM]iB more were refused\)\. From here on activation checkpointing is "
        r"selective instead of none: more is computed twice, and the weights become the same, bit for bit\.",
        ended.shown,
    )
    plain = ["name=plain", "train.micro_batch_size=1", "train.activation_checkpointing=none"]
    go(yaml, *DEEP, *plain, "max_iters=1")
    go(yaml, *DEEP, *plain)
    _, shown = go(yaml, *DEEP)
    assert "Out of memory" not in shown
    assert losses("plain") == losses("tiny")
    assert same_weights("tiny", "plain")


def test_an_update_without_memory_ends_the_run(yaml: Path) -> None:
    """Half of the sequences would not help, and weights may be half-written: the error says so, with what would."""
    wide = [*SHORT, "model.n_embd=512", "model.n_head=4", "batch_size=1", "train.micro_batch_size=1"]
    ended = limited.train(yaml, *wide, mib=50, when=1)
    assert ended.status == 2, ended.shown
    text = ended.error[ended.error.index("RunError") :]
    assert text.startswith("RunError: the model's update does not fit into the memory of ")
    assert "more were refused" in text
    assert "checkpointing" not in text  # it would not help, so there is no word of it
    assert text.rstrip().endswith("each under another name")


@pytest.mark.parametrize(("level", "advice"), [("none", True), ("whole", False)])
def test_what_goes_on_under_the_same_name_is_said_where_it_is_listed(yaml: Path, level: str, advice: bool) -> None:
    """Checkpointing changes nothing that is learnt; where all is computed twice already it is not mentioned."""
    deep = load(yaml, [*DEEP, "train.micro_batch_size=1", f"train.activation_checkpointing={level}"])
    deep = change(deep, {"model.vocab_size": 300, "train.precision": "fp32", "train.loss_chunk": 64})
    run = RunDirectory(Path("results/tiny"))
    device = Device("a CPU", "cpu", memory_gib=8, usable_gib=7)
    error = str(trouble.too_large(Full("2 MiB more were refused"), deep, device, run))
    assert error.endswith("each under another name; train.activation_checkpointing also under this one") == advice
    assert ("activation_checkpointing" in error) == advice


def test_an_evaluation_without_memory_has_its_own_size(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is halved until it goes through; training stays as it is, and the record says both."""
    evaluate = ValidationSet.evaluate

    def narrow(self: ValidationSet, step: Any, batch_size: int) -> Any:
        if batch_size > 4:
            raise LOST
        return evaluate(self, step, batch_size)

    go(yaml, "name=plain", "eval_batch_size=4")
    monkeypatch.setattr(ValidationSet, "evaluate", narrow)
    summary, shown = go(yaml, "eval_batch_size=16")
    assert (
        "Out of memory in the evaluation at step 5 (4 MiB more were refused). From here on 8 sequences at once instead "
        "of 16 in evaluations; training stays as it is." in shown
    )
    assert [(event["step"], event["before"], event["after"]) for event in summary["out_of_memory"]] == [
        (5, 16, 8),
        (5, 8, 4),
    ]
    assert "Memory ran out:\n  at step 5: train.eval_batch_size 16 → 8\n" in shown
    assert [line.get("val_loss") for line in metrics("tiny")] == [line.get("val_loss") for line in metrics("plain")]
    assert same_weights("tiny", "plain", step=20)


def test_a_sample_without_memory_is_left_out(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training goes on as without samples: in training mode, with its dropout."""
    go(yaml, "name=plain", "sample.interval=0")

    def no_room(*_: Any) -> Any:
        raise LOST

    monkeypatch.setattr(generate, "choose", no_room)  # the model is in its evaluation mode by then
    _, shown = go(yaml)
    assert "No sample at step 10: out of memory (4 MiB more were refused).\n" in shown
    assert losses("tiny") == losses("plain")


def test_a_trial_tells_where_memory_ran_out(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a step, in the update or in an evaluation: only two of them are mended by fewer sequences."""
    settled = ["train.loss_chunk=64", "model.vocab_size=257", "train.activation_checkpointing=none"]
    config = load(yaml, ["train.eval_batch_size=4", *settled])
    from ganeum.step.optimizer_step import OptimizerStep
    from ganeum.train.material import open_material

    material = open_material(config, print)
    assert trial.fits(config, material) is None

    def refuse(*_: Any, **__: Any) -> Any:
        raise LOST

    for place, part in (("_loss", "step"), ("_update", "update"), ("token_nats", "evaluation")):
        with monkeypatch.context() as patched:
            patched.setattr(OptimizerStep, place, refuse)
            assert trial.fits(config, material) == Full("4 MiB more were refused", part)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LOST, "4 MiB more were refused"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB. GPU"), "2.00 MiB more were refused"),
        (MemoryError(), "no more could be allocated"),
        (RuntimeError("std::bad_alloc"), "std::bad_alloc"),
        (RuntimeError("could not create a memory object"), "could not create a memory object"),
    ],
)  # fmt: skip
def test_memory_runs_out_under_several_names(error: Exception, said: str) -> None:
    """Each is noticed, and said in one line."""
    assert out_of_memory.is_it(error)
    assert out_of_memory.said(error) == said


def test_what_is_something_else_goes_through() -> None:
    """An error that is none of memory is not swallowed."""
    with pytest.raises(RuntimeError, match="shapes"):
        out_of_memory.attempt(lambda: (_ for _ in ()).throw(RuntimeError("shapes")), lambda: "step")


def test_the_micro_batch_becomes_the_next_divisor_at_most_half() -> None:
    """60 sequences, 20 at once: 10, not 15 or 12; 3 at once: 1."""
    assert [trouble.smaller(60, size) for size in (20, 15, 3)] == [10, 6, 1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_on_a_gpu_a_share_of_its_memory_is_lived_within(yaml: Path) -> None:
    """With a per-process share that the whole batch does not fit into, a smaller micro-batch is proven and trains."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 1.5 * 2**30 / total))
    try:
        wide = [*SHORT, "device=cuda", "model.n_layer=8", "model.n_embd=512", "model.n_head=8", "model.block_size=512"]
        summary, _ = go(yaml, *wide, "batch_size=256", "eval_tokens=4096")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert chosen("tiny")["train.micro_batch_size"]["value"] < 256
    assert summary["out_of_memory"] == []


def test_the_device_is_a_person_s_word() -> None:
    """The error names what there is and what is needed, part by part."""
    config = load_of({"model": {"vocab_size": 50_257, "n_layer": 24, "n_head": 16, "n_embd": 1024, "block_size": 1024}})
    device = Device("a GPU", "cuda", memory_gib=8, usable_gib=7, capability=(8, 6))
    error = trouble.too_large(Full("2.00 GiB more were refused", "update"), config, device)
    assert isinstance(error, RunError)
    lines = str(error).splitlines()
    assert lines[:2] == [
        "RunError: the model's update does not fit into the memory of a GPU",
        "  where  auto, 7.00 GiB usable",
    ]
    assert re.match(
        r"  why    about 7\.\d\d GiB are needed by the estimate: weights 1\.32, optimizer 2\.64, ", lines[2]
    )
    assert lines[4].startswith("  try    train.")


def load_of(content: dict[str, Any]) -> Any:
    from ganeum.config import Config

    return Config.model_validate(content)
