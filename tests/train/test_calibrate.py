"""The short measurement of a machine: what it fits, what it covers, and that it leaves everything as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ganeum.config.schema import Model
from ganeum.errors import DeviceError
from ganeum.hardware import rates
from ganeum.hardware.device import Device
from ganeum.hardware.machine import cpu
from ganeum.plan import time
from ganeum.plan.architecture import ours
from ganeum.plan.execution import Execution
from ganeum.train import probes
from ganeum.train.calibrate import calibrate, fit, fitted
from ganeum.train.probes import Probe, Watch

AMOUNTS = [{"calls": 1.0, "numbers": 64.0 * n, "flops": 2.0 * n**3, "never": 0.0} for n in (4, 16, 64, 256)]
RATE = st.floats(min_value=0, max_value=1, allow_nan=False)


@given(calls=RATE, numbers=RATE, flops=RATE)
@settings(max_examples=30, deadline=None)
def test_the_fit_finds_the_rates_behind_the_times(calls: float, numbers: float, flops: float) -> None:
    """From times that are exactly amounts times rates the same times come out, to a percent."""
    made = {"calls": 1e-3 * (calls + 0.01), "numbers": 1e-6 * numbers, "flops": 1e-9 * flops}
    times = [sum(made[kind] * amounts[kind] for kind in made) for amounts in AMOUNTS]
    found = fit(list(zip(AMOUNTS, times, strict=True)))
    again = [sum(found[kind] * amounts[kind] for kind in found) for amounts in AMOUNTS]
    assert again == pytest.approx(times, rel=0.01)
    assert found["never"] == 0.0


def test_no_rate_is_below_zero() -> None:
    """Times that fall where work grows would need a negative rate; the nearest that is possible is a constant."""
    points = [({"calls": 1.0, "numbers": 1.0}, 1.1), ({"calls": 1.0, "numbers": 10.0}, 1.0)]
    found = fit(points)
    assert found["numbers"] == 0.0
    # Least squares of x / 1.1 − 1 and x / 1.0 − 1: x = (1/1.1 + 1) / (1/1.21 + 1).
    assert found["calls"] == pytest.approx((1 / 1.1 + 1) / (1 / 1.21 + 1))


def test_the_middle_round_counts() -> None:
    """One slow round among five changes nothing, and how well the rates explain the times is told."""
    probe = Probe(("one", "two"), {"calls": 1.0}, list)
    found = fitted([probe], [[[1.0, 2.0], [1.1, 2.0], [50.0, 90.0], [1.2, 2.0], [1.3, 2.0]]])
    assert found.seconds == {"one": {"calls": pytest.approx(1.2)}, "two": {"calls": pytest.approx(2.0)}}
    assert found.misfit == pytest.approx(0.0, abs=1e-9)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Device:
    """This CPU with bf16, calibrated with two tiny sizes of everything in a cache of its own."""
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    monkeypatch.setattr(probes, "BLOCKS", {"cpu": ((2, 8, 16, 1), (2, 16, 32, 2))})
    monkeypatch.setattr(probes, "DROPPED", ((2, 8, 16, 1), (2, 16, 32, 2)))
    monkeypatch.setattr(probes, "LOSSES", {"cpu": ((8, 64, 16), (16, 128, 32))})
    monkeypatch.setattr(probes, "UPDATES", ((1, 16, 64), (2, 32, 64)))
    return Device(cpu().name, "cpu", 16, 12, bf16_unit="AMX")


def test_every_run_of_ours_is_covered(small: Device) -> None:
    """After a calibration each style, precision, optimizer, purpose, dropout and checkpointing has its time."""
    found = calibrate(small, seconds=0)
    assert rates.remembered(small.name, "cpu") == found
    ways: list[dict[str, Any]] = [
        *({"optimizer": optimizer} for optimizer in ("adamw", "muon", "sgd", "adafactor")),
        {"checkpointing": "whole", "accumulation": 2},
        {"purpose": "evaluation"},
        {"purpose": "inference"},
    ]
    for style in ("gpt2", "modern"):
        for dropout in (0.0, 0.1):
            model = Model(style=style, n_layer=2, n_head=2, n_embd=32, block_size=16, dropout=dropout)
            for precision in ("fp32", "bf16"):
                for way in ways:
                    execution = Execution(
                        micro_batch_size=2, length=16, kind="cpu", precision=precision, loss_chunk=512, **way
                    )
                    step = time.of(ours.architecture(model, 100), execution, small)
                    assert step is not None
                    assert step.source.startswith(f"calibrated on this machine {found.date}"), (style, way)
                    assert step.step_s > 0


def test_a_calibration_leaves_everything_as_it_was(small: Device) -> None:
    """Random numbers, fp32's precision and the mode of the kernels are the caller's."""
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    torch.set_float32_matmul_precision("high")
    try:
        calibrate(small, seconds=0)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(torch.rand(3), expected)


def test_an_apple_gpu_is_refused() -> None:
    """Nobody has measured whether its clock can be trusted."""
    with pytest.raises(DeviceError) as refused:
        calibrate(Device("Apple M2", "mps", 16, 12))
    assert str(refused.value) == (
        "DeviceError: Apple M2 cannot be calibrated\n"
        "  where  device mps\n"
        "  why    only the time of a CPU's and of a CUDA device's work is measured so far\n"
        "  try    ganeum train measures a few of the run's own steps before it starts"
    )


def test_a_watch_tells_stretches_apart() -> None:
    """Between three marks there are two stretches, both forwards in time."""
    watch = Watch(torch.device("cpu"))
    sum(range(1000))
    watch.mark()
    watch.mark()
    first, second = watch.seconds()
    assert first >= 0
    assert second >= 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_a_gpu_is_calibrated_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a CUDA device the same modules are timed by events, and a step of GPT-2 gets its time from them."""
    from ganeum.hardware.detect import detect

    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path))
    device = detect("cuda")
    found = calibrate(device)
    model = Model(n_layer=12, n_head=12, n_embd=768, block_size=1024)
    execution = Execution(micro_batch_size=4, precision=device.fast_precision, loss_chunk=2048)
    step = time.of(ours.architecture(model, 50_257), execution, device)
    assert step is not None
    assert step.source.startswith(f"calibrated on this machine {found.date}")
