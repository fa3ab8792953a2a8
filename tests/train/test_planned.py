"""The plan inside training: made before step 0, obeyed, and held against what was measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_corpus import go

from ganeum import hardware
from ganeum.config import load
from ganeum.config.change import change
from ganeum.errors import RunError
from ganeum.plan.critique import fit
from ganeum.plan.memory import Memory
from ganeum.train import comparison, pace, trial
from ganeum.train.progress import Progress
from ganeum.units import GIB


def plan_of(name: str) -> dict[str, Any]:
    content = json.loads(Path(f"results/{name}/plan.json").read_text())
    assert isinstance(content, dict)
    return content


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 1 MiB of memory to use: less than the weights, gradients and state of any model take."""
    detect = hardware.detect
    monkeypatch.setattr(
        hardware, "detect", lambda name: replace(detect(name), name="a small machine", usable_gib=2**-10)
    )


@pytest.mark.usefixtures("small")
def test_what_cannot_fit_is_refused_before_anything_is_allocated(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is built and no directory made; the error says what is needed, and what would help."""
    monkeypatch.setattr(trial, "start", None)
    with pytest.raises(RunError) as error:
        go(yaml, "train.micro_batch_size=auto")
    first, where, why, *tried = str(error.value).splitlines()
    assert first == "RunError: this run cannot fit into the memory of a small machine"
    assert where == "  where  cpu, 0.00 GiB usable"
    assert why.startswith("  why    at least 0.")
    assert " GiB are needed with one sequence of 32 tokens at once, computed twice: " in why
    assert tried[0].startswith("  try    ")
    assert tried[-1] == "         or --force, which tries it all the same"
    assert not Path("results/tiny").exists()


@pytest.mark.usefixtures("small")
def test_force_starts_it_and_the_plan_says_so(yaml: Path) -> None:
    """The estimate is overruled, what is tried before the start goes through, and the record has both."""
    from ganeum.train.run import train

    summary = train(load(yaml), force=True)
    assert summary["steps"] == 20
    (forced,) = (choice for choice in plan_of("tiny")["choices"] if choice["key"] == "--force")
    assert forced["value"] is True
    assert forced["reason"].endswith(" are needed, and 0.00 GiB are usable: started all the same")


def test_a_run_that_fits_is_not_asked(yaml: Path) -> None:
    """The tiny run on this machine: nothing is refused, nothing is forced, and the plan lies there before step 0."""
    go(yaml)
    assert "--force" not in {choice["key"] for choice in plan_of("tiny")["choices"]}


def test_the_least_that_a_run_takes_is_compared_with_what_is_usable(
    yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 GiB at the least and 0.3 to 0.5 of the framework: refused at 3.2 GiB, let go at 3.4, whatever is expected."""
    from ganeum.plan import memory

    config = load(yaml, ["model.vocab_size=257"])
    device = hardware.look("cpu")
    needed = Memory(
        {"weights": 9.0 * GIB}, "loss", low=3.0 * GIB, high=12.0 * GIB, framework=0.5 * GIB, framework_low=0.3 * GIB
    )
    monkeypatch.setattr(memory, "of", lambda *_: needed)
    assert fit.impossible(config, replace(device, usable_gib=3.2)) is needed
    assert fit.impossible(config, replace(device, usable_gib=3.4)) is None


def test_what_may_be_computed_twice_counts_before_a_run_is_refused(yaml: Path) -> None:
    """20 layers of 1,024 tokens hold some 60 MiB that need not be held: refused with `none`, let go with `auto`."""
    deep = ["model.vocab_size=257", "model.n_layer=20", "model.block_size=1024", "model.dropout=0"]
    config, device = load(yaml, deep), hardware.look("cpu")
    none, auto = (change(config, {"train.activation_checkpointing": level}) for level in ("none", "auto"))
    nothing = replace(device, usable_gib=0.0)
    with_none, with_auto = (fit.impossible(one, nothing) for one in (none, auto))
    assert with_none is not None
    assert with_auto is not None
    assert with_none.low - with_auto.low > 50 * 2**20
    between = replace(device, usable_gib=(with_auto.least + 2**20) / GIB)
    assert fit.impossible(auto, between) is None
    assert fit.impossible(none, between) is not None


PLANNED = {
    "time": {"step_s": 2.0, "low": 1.0, "high": 4.0, "tokens_per_second": 128.0, "hours": 1.0, "mfu": 0.3},
    "memory_gib": {"peak_allocated": 3.0, "low": 2.5, "high": 3.5, "peak_reserved": 3.5},
    "data": {"steps": 20},
    "loss": {"expected": 4.0, "low": 3.5, "high": 4.5},
}
LOGGED = [
    {"step": 1, "step_time_s": 9.0, "tokens_per_second": 28.0, "mfu": 0.01, "memory_allocated_gib": 2.9},
    {"step": 2, "step_time_s": 3.0, "tokens_per_second": 85.0, "mfu": 0.2, "memory_allocated_gib": 3.6},
]


def settled(yaml: Path) -> Any:
    """The tiny run's config with every key decided that the comparison asks for: 20 steps of 8 × 32 tokens."""
    return load(
        yaml, ["model.vocab_size=257", "train.loss_chunk=64", "train.eval_batch_size=4", "train.precision=fp32"]
    )


def test_bounds_of_a_step_are_those_of_what_goes_with_it(yaml: Path) -> None:
    """1 to 4 s around 2 s: half to twice the hours, half to twice the rate; the first step is left out."""
    progress = Progress(step=20, tokens_seen=5120, elapsed_s=3 * 3600.0, val_loss=4.2)
    found = comparison.of(settled(yaml), progress, PLANNED, LOGGED)
    assert found["step_s"] == {"planned": 2.0, "low": 1.0, "high": 4.0, "measured": 3.0, "inside": True}
    assert found["tokens_per_second"] == {
        "planned": 128.0, "low": 64.0, "high": 256.0, "measured": 85.0, "inside": True,
    }  # fmt: skip
    assert found["hours"] == {"planned": 1.0, "low": 0.5, "high": 2.0, "measured": 3.0, "inside": False}
    assert found["peak_allocated_gib"] == {"planned": 3.0, "low": 2.5, "high": 3.5, "measured": 3.6, "inside": False}
    assert found["val_loss"] == {"planned": 4.0, "low": 3.5, "high": 4.5, "measured": 4.2, "inside": True}
    assert found["tokens_seen"] == {"planned": 5120, "measured": 5120}
    assert "measured" not in found["peak_reserved_gib"]


def test_measured_times_go_together(yaml: Path) -> None:
    """256 tokens in 2 s and in 8 s: the middle line's seconds and its rate, not 5 s and the mean of both rates."""
    lines = [{"step": step, "step_time_s": s, "tokens_per_second": 256 / s} for step, s in ((2, 2.0), (3, 8.0))]
    found = comparison.of(settled(yaml), Progress(step=20, elapsed_s=1.0), PLANNED, lines)
    assert found["step_s"]["measured"] * found["tokens_per_second"]["measured"] == 256


def test_three_steps_in_a_row_are_no_bounds() -> None:
    """Steps of 1.00 to 1.02 s leave a run between 0.84 and 1.21 s; steps of 1 to 9 s, what they were."""
    assert pace.bounds([1.0, 1.01, 1.02]) == pytest.approx((0.8383, 1.212))
    assert pace.bounds([1.0, 2.0, 9.0]) == (1.0, 9.0)


def test_a_run_that_went_on_longer_has_no_loss_planned(yaml: Path) -> None:
    """40 steps where 20 were planned: twice the hours, and a loss that nobody planned."""
    progress = Progress(step=40, tokens_seen=10_240, elapsed_s=7200.0, val_loss=3.9)
    found = comparison.of(settled(yaml), progress, PLANNED, LOGGED)
    assert found["hours"]["planned"] == 2.0
    assert found["val_loss"] == {"measured": 3.9}


def test_the_table_at_the_end(yaml: Path) -> None:
    """Planned, its bounds, measured, how far off, and whether that was said to be possible."""
    progress = Progress(step=20, tokens_seen=5120, elapsed_s=3 * 3600.0, val_loss=4.2)
    shown = comparison.in_words(comparison.of(settled(yaml), progress, PLANNED, LOGGED), "a guess")
    assert (
        "\n".join(shown)
        == """
                     planned              low – high    measured  off by
a step                   2 s               1 s – 4 s         3 s    +50%  inside
tokens/s                 128                64 – 256          85    -34%  inside
MFU                    30.0%           15.0% – 60.0%       20.0%    -33%  inside
in all             1 h 0 min  30 min 0 s – 2 h 0 min   3 h 0 min   +200%  outside
allocated           3.00 GiB     2.50 GiB – 3.50 GiB    3.60 GiB    +20%  outside
validation loss        4.000           3.500 – 4.500       4.200     +5%  inside
tokens                  5.1k                                5.1k     +0%
(times planned: a guess)
"""
    )


def test_a_run_of_before_there_were_bounds_goes_on(yaml: Path) -> None:
    """Ended before its first checkpoint, with such a plan: it begins again and shows what that plan has."""
    go(yaml)
    run = Path("results/tiny")
    predicted = plan_of("tiny")
    for key in ("at", "low", "high", "fits", "framework"):
        del predicted["memory_gib"][key]
    for key in ("low", "high", "by_part"):
        predicted.get("time", {}).pop(key, None)
    del predicted["batch"]["largest_micro_batch"]
    (run / "plan.json").write_text(json.dumps(predicted))
    shutil.rmtree(run / "checkpoints")
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"state": "interrupted", "step": 0}))
    ended, shown = go(yaml)
    assert ended["steps"] == 20
    assert " GiB  at the fullest moment  " in shown
    assert json.loads((run / "plan.json").read_text()) == predicted
