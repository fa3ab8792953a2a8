"""Trainings of ours are examined by their own steps: nothing wrong is found in them, and what is put in is."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_pairs
import torch

from ganeum.config import load
from ganeum.data.examples import collate
from ganeum.doctor.examine import examine
from ganeum.doctor.measured.ours import training

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pairs.write(tmp_path_factory.mktemp("examined") / "pairs")


def alarms(*arguments: Any) -> list[str]:
    return [one.cause for one in examine(training(load(*arguments))) if one.is_alarm]


@pytest.mark.parametrize(
    "overrides",
    [("train.compile=true",), ("model.style=modern", "train.optimizer=muon", "data.order=epochs")],
    ids=str,
)
def test_a_gpt_of_ours_is_left_alone(yaml: Path, overrides: tuple[str, ...]) -> None:
    """In both styles, compiled, with two parts of an optimizer, in either order of its windows."""
    assert [] == alarms(yaml, overrides)


@pytest.mark.parametrize(
    ("kind", "batching"), [("t5", "packed"), ("t5", "buckets"), ("gpt2", "packed"), ("gpt2", "padded")]
)
def test_adopted_models_are_left_alone(here: Path, pairs: Path, kind: str, batching: str) -> None:
    """Pairs and texts, in rows of any kind, their weights trained elsewhere."""
    assert [] == alarms(tiny_pairs.config(pairs, here / "c.yaml", kind), [f"data.batching={batching}"])


def test_adapters_are_left_alone(here: Path, pairs: Path) -> None:
    """What they stand beside is frozen on purpose."""
    assert [] == alarms(tiny_pairs.config(pairs, here / "c.yaml", "gpt2"), ["train.lora.rank=4"])


def test_overlap_of_windows_is_measured(yaml: Path) -> None:
    """Windows of 32 tokens that start 8 apart: a token is seen 4 times an epoch."""
    (finding,) = [one for one in examine(training(load(yaml, ["data.order=epochs", "data.stride=8"]))) if one.is_alarm]
    assert ("overlapping_windows", 4.0) == (finding.cause, finding.size)


@pytest.mark.parametrize(
    ("fault", "cause"), [("end", "end_not_learnt"), ("shift", "shifted_labels"), ("rate", "never_updated")]
)
def test_what_is_put_into_ours_is_seen(
    here: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch, fault: str, cause: str
) -> None:
    """The end of each text left out of its targets; targets one place further on; a learning rate of nothing."""
    made = collate.Causal.batch

    def spoilt(self: Any, *inputs: Any, **named: Any) -> Any:
        batch = made(self, *inputs, **named)
        if fault == "end":
            targets = batch.targets.masked_fill(batch.targets == 1, -1)
        else:
            targets = torch.cat((batch.targets[:, 1:], batch.targets.new_full((len(batch.targets), 1), -1)), 1)
        rows = (targets.flatten() >= 0).nonzero()[:, 0]
        return collate.Batch(batch.inputs, targets, rows, batch.padding)

    config = tiny_pairs.config(pairs, here / "c.yaml", "gpt2")
    taken = training(load(config, ["data.batching=padded"]))
    step: Callable[[Any], Any] = taken.step
    if fault == "rate":
        monkeypatch.setattr("ganeum.doctor.measured.ours.learning_rate", lambda *_: 0.0)
    else:
        monkeypatch.setattr(collate.Causal, "batch", spoilt)
        monkeypatch.setattr(type(next(iter(taken.batches))), "targets", property(_counted), raising=False)
    taken.step = step
    assert cause in [one.cause for one in examine(taken)]


def _counted(whole: Any) -> int:
    return sum(batch.counted for batch in whole.micro_batches(len(whole)))


def test_examining_leaves_a_training_as_it_was(yaml: Path) -> None:
    """Weights, optimizer, random numbers, the number of the step: the next step is the same, bit for bit."""

    def after(look: bool) -> tuple[str, dict[str, Any]]:
        torch.manual_seed(3)
        taken = training(load(yaml))
        batches = iter(taken.batches)
        for _ in range(2):
            taken.step(next(batches))
        if look:
            examine(taken)
        losses = [float(taken.step(next(batches))) for _ in range(3)]
        assert taken.taking is not None
        return json.dumps(losses), copy.deepcopy(taken.taking.state_dict())

    (losses, state), (again, other) = after(False), after(True)
    assert losses == again
    torch.testing.assert_close(state, other, rtol=0, atol=0)
