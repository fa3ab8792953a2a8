"""A calibration is kept for one device, one number of threads and one torch, and read back without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ganeum.errors import DeviceError
from ganeum.hardware import peaks, rates
from ganeum.hardware.rates import Rates

MEASURED = Rates("2026-11-21", {"fp32 loss training": {"flops": 1e-11, "logits": 0.0}}, 0.03)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    return tmp_path


def test_what_was_measured_is_read_back() -> None:
    """For the same processor, threads and torch, and for no other."""
    rates.remember("EPYC", 4, MEASURED)
    assert rates.remembered("EPYC", "cpu") == MEASURED
    assert rates.remembered("Ryzen", "cpu") is None
    assert rates.remembered("EPYC", "cpu", {"OMP_NUM_THREADS": "2"}) is None
    assert rates.remembered("EPYC", "cuda") is None


def test_another_torch_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels change with versions."""
    rates.remember("EPYC", 4, MEASURED)
    monkeypatch.setattr(peaks, "torch_version", lambda: "3.0")
    assert rates.remembered("EPYC", "cpu") is None


def test_other_amounts_need_other_rates() -> None:
    """What an older ganeum measured is not multiplied with amounts that a newer one counts otherwise."""
    rates.remember("EPYC", 4, MEASURED, of="amounts 0")
    assert rates.remembered("EPYC", "cpu") is None


def test_a_gpu_is_kept_without_threads() -> None:
    """Its kernels do not care how many threads the processor has; a CPU's calibration beside it stays."""
    rates.remember("EPYC", 4, MEASURED)
    rates.remember("NVIDIA L4", None, MEASURED)
    assert rates.remembered("NVIDIA L4", "cuda", {}) == MEASURED
    assert rates.remembered("EPYC", "cpu") == MEASURED


def test_a_cache_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What no plan would find again is not said to be remembered."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path / "file"))
    with pytest.raises(DeviceError) as raised:
        rates.remember("EPYC", 4, MEASURED)
    assert str(raised.value) == (
        "DeviceError: what was measured cannot be remembered\n"
        f"  where  {tmp_path / 'file' / 'rates.json'}\n"
        "  why    File exists\n"
        "  try    GANEUM_CACHE=DIRECTORY, one that can be written, for this command and for the plans"
    )


def test_a_new_calibration_takes_the_place_of_the_old() -> None:
    """At once, also within a process that has read the old one."""
    rates.remember("EPYC", 4, MEASURED)
    assert rates.remembered("EPYC", "cpu") == MEASURED
    later = Rates("2026-11-22", {"dropout": {"calls": 2e-6}}, 0.5)
    rates.remember("EPYC", 4, later)
    os.utime(rates.file(), ns=(1, 1))  # another time, however coarse the file system's clock is
    assert rates.remembered("EPYC", "cpu") == later


@pytest.mark.parametrize(
    "kept",
    [
        "no dictionary",
        {"date": "2026-11-21", "misfit": 0.1},
        {"date": "2026-11-21", "misfit": 0.1, "seconds": {}},
        {"date": "2026-11-21", "misfit": 0.1, "seconds": ["fp32"]},
        {"date": "2026-11-21", "misfit": 0.1, "seconds": {"fp32 loss training": {"flops": "fast"}}},
        {"date": "2026-11-21", "misfit": 0.1, "seconds": {"fp32 loss training": {"flops": -1e-11}}},
        {"date": "2026-11-21", "misfit": 0.1, "seconds": {"fp32 loss training": {"flops": float("nan")}}},
    ],
)
def test_what_is_damaged_was_never_measured(kept: Any) -> None:
    """An entry that is not whole, or a rate that cannot be, is passed over."""
    rates.file().write_text(json.dumps({rates.key("EPYC", 4): kept}))
    assert rates.remembered("EPYC", "cpu") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_a_damaged_file_is_ignored_and_written_anew(content: bytes) -> None:
    """Whatever lies there: it is a cache."""
    rates.file().write_bytes(content)
    assert rates.remembered("EPYC", "cpu") is None
    rates.remember("EPYC", 4, MEASURED)
    os.utime(rates.file(), ns=(1, 1))
    assert rates.remembered("EPYC", "cpu") == MEASURED


def test_torch_is_not_loaded() -> None:
    """A plan reads it, and a plan starts without torch."""
    code = (
        "import sys; from ganeum.hardware import rates; rates.remembered('EPYC', 'cpu'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
