"""A traced step's time: its operations are those of the real step, and rates and data sheets are multiplied out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ganeum.config import Config
from ganeum.data.batch import WindowBatch
from ganeum.hardware import rates
from ganeum.hardware.device import Device
from ganeum.hardware.rates import Rates
from ganeum.plan import execution
from ganeum.plan.trace import roofline, timed
from ganeum.plan.trace.operations import Operations
from ganeum.plan.trace.roofline import Operation
from ganeum.plan.trace.step import trace
from ganeum.step.timings import Timings
from ganeum.train import operation_rates
from ganeum.train.start import start

CPU = Device("a CPU", "cpu", memory_gib=64, usable_gib=50)
CARD = Device(
    "a card",
    "cuda",
    memory_gib=24,
    usable_gib=23,
    capability=(8, 0),
    memory_bandwidth_gb_s=1000.0,
    peak_flops_per_second={"bf16": 100e12, "fp32": 10e12, "tf32": 50e12},
)


def config_of(**train: Any) -> Config:
    return Config.model_validate(
        {
            "name": "timed",
            "device": "cpu",
            "model": {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 64, "vocab_size": 100},
            "train": {
                "batch_size": 4,
                "micro_batch_size": 2,
                "precision": "fp32",
                "compile": False,
                "loss_chunk": 64,
                "activation_checkpointing": "none",
            }
            | train,
        }
    )


class Phase(Timings):
    now = "forward"

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.now = {"optimizer": "update", "data": "batch"}.get(name, name)
        yield


def really(config: Config) -> Counter[Operation]:
    """The operations of a second step that is really taken."""
    step, phase, seen = start(config), Phase(), Operations()
    step.model.train()
    ids = torch.zeros(4, 64, dtype=torch.int64)
    for number in range(2):
        seen = Operations()
        seen.phase = lambda: phase.now
        with seen:
            step.on(WindowBatch(ids, ids), at_once=2, step=number, learning_rate=1e-3, timings=phase)
    return seen.counts


@pytest.mark.parametrize(
    "train", [{}, {"precision": "bf16", "optimizer": "muon"}, {"activation_checkpointing": "whole"}], ids=str
)
def test_a_traced_step_does_what_the_real_one_does(train: dict[str, Any]) -> None:
    """The same products with the same FLOPs in the same phases, as often; so every rate meets the right amounts."""
    config, seen = config_of(**train), Operations()
    trace(config, CPU, execution.of(config, CPU, 2), seen)

    def products(counts: Counter[Operation]) -> dict[Operation, int]:
        return {one: count for one, count in counts.items() if one.flops}

    real = really(config)
    assert products(seen.counts) == products(real)
    assert len(products(real)) > 5
    passes, real_passes = (
        sum(one.bytes * count for one, count in counts.items() if not one.flops) for counts in (seen.counts, real)
    )
    assert passes == pytest.approx(real_passes, rel=0.02)


def counted(function: Any, *tensors: Tensor) -> dict[Operation, int]:
    with Operations() as seen:
        function(*tensors)
    return dict(seen.counts)


def test_a_products_work_is_counted_by_hand() -> None:
    """(64 × 32) · (32 × 16) is 2 · 64 · 32 · 16 FLOP and 4 bytes for each number of the three matrices."""
    found = counted(torch.mm, torch.zeros(64, 32), torch.zeros(16, 32).t())
    numbers = 64 * 32 + 32 * 16 + 64 * 16
    assert found[Operation("aten::mm nt", "forward", "fp32", 2.0 * 64 * 32 * 16, 4.0 * numbers)] == 1


def test_what_only_looks_at_memory_moves_nothing() -> None:
    """A view has no bytes, and an expanded dimension is read once."""
    found = counted(lambda x: x.t().expand(8, 16, 32).add(1.0), torch.zeros(32, 16, dtype=torch.bfloat16))
    assert found[Operation("view", "forward")] == 2
    added = next(one for one in found if one.name.startswith("aten::add"))
    assert added.bytes == 2 * 16 * 32 + 2 * 8 * 16 * 32


def test_rates_are_multiplied_out() -> None:
    """3 µs a call, 1 ns a FLOP, 1 ps a byte, 5 ps more for each beyond a MiB; 2 µs around each call; and an operation
    that was never measured goes by those like it."""
    known = Rates(
        "2026-11-21",
        {
            "aten::mm fp32": {"calls": 3e-6, "flops": 1e-9, "bytes": 1e-12, "far bytes": 5e-12},
            "any pass fp32": {"calls": 1e-6, "bytes": 2e-12},
            "between operations, forward": {"calls": 2e-6},
        },
        0.04,
    )
    product = Operation("aten::mm", "forward", "fp32", 1000.0, 2.0**21)
    strange = Operation("aten::erfinv", "forward", "fp32", 0.0, 1e6)
    expected = 2 * (3e-6 + 1e-6 + 2**21 * 1e-12 + 2**20 * 5e-12 + 2e-6) + (1e-6 + 2e-6 + 2e-6)
    assert roofline.measured({product: 2, strange: 1}, known) == {"forward": pytest.approx(expected)}
    assert roofline.measured({replace(product, phase="update"): 1}, known) is None, "nothing is known of that phase"


def test_a_cards_roofline_is_worked_out_by_hand() -> None:
    """0.87 of an A100-like peak for products, 0.8 of the bandwidth, 0.8 of a product's traffic not hidden and 4 µs for
    its last tiles (plan/time/roofline.py); TF32 where fp32's products may be rounded. The host queues a kernel in 9 µs,
    and sets the pace where that is more."""
    product = Operation("aten::mm nn", "forward", "bf16", 8.7e12, 8e9, "cuda")
    on_card = 8.7e12 / (100e12 * 0.87) + 0.8 * 8e9 / 800e9 + 4e-6
    assert roofline.listed({product: 3}, "bf16", CARD) == {"forward": pytest.approx(3 * on_card), "launches": 0.0}
    rounded = replace(product, precision="fp32")
    slower = roofline.listed({rounded: 1}, "fp32", CARD)
    faster = roofline.listed({rounded: 1}, "tf32", CARD)
    assert slower is not None
    assert faster is not None
    assert slower["forward"] - faster["forward"] == pytest.approx(8.7e12 / 0.87 * (1 / 10e12 - 1 / 50e12))
    small = Operation("aten::add", "backward", "bf16", 0.0, 800.0, "cuda")
    assert roofline.listed({small: 1000}, "bf16", CARD) == {
        "backward": pytest.approx(1000 * 1e-9),
        "launches": pytest.approx(1000 * (9e-6 - 1e-9)),
    }
    assert roofline.listed({product: 1}, "bf16", replace(CARD, peak_flops_per_second={})) is None


def test_more_micro_batches_repeat_the_second() -> None:
    """Six of them do three times the work of two, and one update."""
    found = roofline.of_all({Operation("a", "batch"): 2, Operation("a", "forward"): 2, Operation("b", "update"): 1}, 6)
    assert found == {Operation("a", "forward"): 12.0, Operation("b", "update"): 1.0}


def test_operations_go_to_json_and_back() -> None:
    """Between the process that traces and the one that asks."""
    operations = {Operation("aten::mm nt", "forward", "bf16", 2.0, 3.0, "cuda"): 4.0, Operation("view", "update"): 1.0}
    assert roofline.from_json(roofline.to_json(operations)) == operations
    with pytest.raises(ValueError, match="these are no operations"):
        roofline.from_json("[1]")


class Made:
    """A case of operation_rates whose times are made from known rates."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes

    def operations(self) -> dict[Operation, list[float]]:
        found = {}
        for n in self.sizes:
            for phase in roofline.PHASES:
                one = Operation("aten::mm nn", phase, "fp32", 2.0 * n**3, 12.0 * n**2)
                found[one] = operation_rates.TIMED * [5e-6 + 1e-10 * one.flops + 1e-11 * one.bytes]
        return found

    def whole(self, phase: str) -> float:
        seconds = (taken for one, taken in self.operations().items() if one.phase == phase)
        return sum(map(sum, seconds)) / operation_rates.TIMED + 7e-6 * len(self.sizes)


def test_made_up_times_give_their_rates_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """5 µs a call, 0.1 ns a FLOP, 10 ps a byte, and 7 µs between operations in each phase."""
    monkeypatch.setattr(operation_rates, "_looking", lambda: 0.0)
    found = operation_rates.fitted([Made((16, 40)), Made((64, 128, 200)), Made((90, 30))])  # type: ignore[list-item]
    assert found.seconds["aten::mm nn fp32"]["flops"] == pytest.approx(1e-10, rel=0.02)
    assert found.seconds["between operations, backward"]["calls"] == pytest.approx(7e-6, rel=0.02)
    assert found.misfit < 0.01


PLAN = {
    "time": {
        "step_s": 2.0,
        "low": 1.5,
        "high": 2.7,
        "tokens_per_second": 100.0,
        "mfu": 0.3,
        "hours": 10.0,
        "by_part": {"matmul": 2.0},
        "source": "catalogue, not measured",
    },
    "cost": {"hours": 10.0, "kwh": 3.0, "power_w": 300.0},
}
WAY = execution.Execution(micro_batch_size=1, length=8)


def test_a_plans_time_follows_the_trace() -> None:
    """Half the seconds are twice the tokens a second, half the hours and half the energy, at the same power."""
    half = {Operation("aten::add", "forward", "fp32", 0.0, 800e9, "cuda"): 1.0}
    found = timed.retimed(PLAN, CARD, WAY, half)
    assert found["time"] == {
        "step_s": pytest.approx(1.0),
        "low": pytest.approx(0.75),
        "high": pytest.approx(1.35),
        "tokens_per_second": pytest.approx(200.0),
        "mfu": pytest.approx(0.6),
        "hours": pytest.approx(5.0),
        "by_part": {"forward": pytest.approx(1.0), "launches": 0.0},
        "source": "catalogue, not measured; operations traced",
    }
    assert found["cost"] == {"hours": pytest.approx(5.0), "kwh": pytest.approx(1.5), "power_w": 300.0}


def test_what_was_measured_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Steps that were measured on this GPU are nearer than its data sheet; and a CPU whose operations nobody measured
    keeps its plan."""
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path))
    measured = PLAN | {"time": PLAN["time"] | {"source": "calibrated on this machine 2026-11-21"}}
    operations = {Operation("aten::add", "forward", "fp32", 0.0, 800e9, "cuda"): 1.0}
    assert timed.retimed(measured, CARD, WAY, operations) is measured
    assert timed.retimed(PLAN, CPU, WAY, operations) is PLAN
    assert timed.retimed(PLAN, CARD, WAY, {}) is PLAN


def test_both_calibrations_are_kept_beside_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Modules' and operations' rates of one processor."""
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path))
    modules, single = Rates("2026-11-21", {"a": {"calls": 1.0}}, 0.1), Rates("2026-11-22", {"b": {"calls": 2.0}}, 0.2)
    rates.remember("EPYC", 1, modules)
    rates.remember("EPYC", 1, single, of=rates.OPERATIONS)
    assert rates.remembered("EPYC", "cpu", {"OMP_NUM_THREADS": "1"}) == modules
    assert rates.remembered("EPYC", "cpu", {"OMP_NUM_THREADS": "1"}, of=rates.OPERATIONS) == single
