"""What a card is doing, through the unmodified nvidia-ml-py and a driver's library written in C for these tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ganeum.hardware import sensors

STUB = Path(__file__).with_name("nvml_stub.c")
LOOKS = """
import json, sys
from ganeum.hardware.sensors import Sensors
with Sensors(sys.argv[2:]) as card:
    looks = [card.read() for _ in range(int(sys.argv[1]))]
assert "torch" not in sys.modules
print(json.dumps(looks))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("driver"))


def built(directory: Path, *flags: str) -> Path:
    """A directory with the stub in it, for LD_LIBRARY_PATH."""
    if shutil.which("gcc") is None or sys.platform != "linux":
        pytest.skip("the stub of NVML needs gcc, and Linux")
    subprocess.run(["gcc", "-shared", "-fPIC", *flags, "-o", directory / "libnvidia-ml.so.1", STUB], check=True)
    return directory


def looks(driver: Path, times: int, *addresses: str, **settings: str) -> list[dict[str, Any]]:
    """What a process of its own sees."""
    environment = os.environ | {"LD_LIBRARY_PATH": str(driver)} | settings
    command = [sys.executable, "-c", LOOKS, str(times), *addresses]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    result: list[dict[str, Any]] = json.loads(done.stdout)
    return result


BUSY = {
    "sm_clock_mhz": 1200,
    "sm_clock_max_mhz": 2100,
    "memory_clock_mhz": 9501,
    "power_w": 249.5,
    "power_limit_w": 320.0,
    "temperature_c": 87,
    "memory_used_gib": 3.0,
    "gpu_utilization_percent": 99,
    "memory_utilization_percent": 40,
    "performance_state": "P2",
    "throttle_reasons": ["sw_thermal_slowdown"],
}


def test_every_figure_of_a_card(driver: Path) -> None:
    """Names end in units, values are the driver's, milliwatts are watts, bits are names."""
    assert [BUSY] == looks(driver, 1, "GPU-aaaa")


def test_a_figure_that_the_card_does_not_know_is_left_out(driver: Path) -> None:
    """The second card, found by its PCI address where its UUID is none of NVML's, and at every look."""
    first, second = looks(driver, 2, "MIG-cccc", "00000000:65:00.0")
    assert set(BUSY) - set(first) == {"power_limit_w", "performance_state"}
    assert (210, ["gpu_idle", "sw_power_cap"]) == (first["sm_clock_mhz"], first["throttle_reasons"])
    assert first == second


def test_an_old_driver_knows_the_reasons_by_their_old_name(tmp_path: Path) -> None:
    """Before 535 they are called throttle reasons: the new name is missing from its library."""
    assert [BUSY] == looks(built(tmp_path, "-DOLD_DRIVER"), 1, "GPU-aaaa")


def test_a_card_that_answers_nothing_more_is_an_error(driver: Path) -> None:
    """It was lost from the bus; so is one that no address names."""
    with pytest.raises(RuntimeError, match="NVMLError_GpuIsLost"):
        looks(driver, 3, "GPU-aaaa", STUB_LOST_AFTER="2")
    with pytest.raises(RuntimeError, match="NVMLError_NotFound"):
        looks(driver, 1, "GPU-cccc", "00000000:01:00.0")


def test_a_reason_that_is_newer_than_we_are_stays_a_number() -> None:
    """Bits 0x4 and 0x1000: one has a name."""
    assert ["sw_power_cap", "0x1000"] == sensors.names(0x1004)
    assert [] == sensors.names(0)
