"""A GPU watched through the unmodified nvidia-ml-py and a driver's library written in C for these tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def doctor(driver: Path, *options: str, **settings: str) -> dict[str, Any]:
    """The report of `ganeum doctor gpu`, in a process of its own."""
    environment = os.environ | {"LD_LIBRARY_PATH": str(driver), "COLUMNS": "200"} | settings
    code = "import sys; from ganeum.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "doctor", "gpu", "--json", "--seconds", "1.2", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def alarms(report: dict[str, Any]) -> list[str]:
    return [finding["cause"] for finding in report["findings"] if finding["severity"] != "note"]


def test_a_card_held_down_by_heat(driver: Path) -> None:
    """The reason, the clock that it leaves and the temperature; measured, since it is this machine's."""
    report = doctor(driver)
    assert ["thermal"] == alarms(report)
    (heat,) = (finding for finding in report["findings"] if finding["cause"] == "thermal")
    assert ("measured", pytest.approx(1 - 1200 / 1710)) == (heat["sure"], heat["size"])
    assert "clock 1,200 of its boost clock of 1,710 MHz (70%)" in heat["evidence"]
    assert "it was busy already" in report["subject"]


def test_an_idle_card_that_caps_its_power_is_no_alarm(driver: Path) -> None:
    """Card 1 idles with idle and cap active; torch here can use no GPU, so it is only looked at."""
    report = doctor(driver, "--index", "1", "--watch")
    assert [] == report["findings"]
    assert "idles" in report["headline"]


def test_capped_time_counts_as_a_difference(driver: Path) -> None:
    """100 s of long ago are no alarm; nine tenths of the watched second, at the limit with a low clock, are."""
    settings = {"STUB_REASONS": "0", "STUB_SM": "2000"}
    quiet = doctor(driver, **settings)
    assert [] == alarms(quiet)
    assert any("1 min 40 s are counted" in text for text in quiet["ruled_out"])
    capped = doctor(driver, **settings, STUB_CAPPED="900")
    notes = [finding["title"] for finding in capped["findings"]]
    assert ["SW power cap for 90% of the time that was watched"] == notes
    assert [] == alarms(capped)  # 250 of 320 W: no limit that holds the clock


def test_a_battery_is_told(driver: Path) -> None:
    """NVML's own word for where the power comes from."""
    assert ["battery"] == alarms(doctor(driver, STUB_REASONS="0", STUB_SM="2000", STUB_POWER_FROM="1"))
    assert [] == alarms(doctor(driver, STUB_REASONS="0", STUB_SM="2000", STUB_POWER_FROM="0"))


def test_a_card_that_is_lost_meanwhile_is_an_error_in_the_answer(driver: Path) -> None:
    """In the driver's own words; not a traceback, and not an answer about what was seen before."""
    report = doctor(driver, STUB_LOST_AFTER="2")
    assert ["driver"] == alarms(report)
    assert "GPU is lost" in report["findings"][0]["evidence"][0]


def test_an_old_driver_is_asked_by_its_own_names(tmp_path: Path, driver: Path) -> None:
    """Before 535 the reasons had another name."""
    stub = Path(__file__).parents[1] / "hardware" / "nvml_stub.c"
    command = ["gcc", "-shared", "-fPIC", "-DOLD_DRIVER", "-o", tmp_path / "libnvidia-ml.so.1", stub]
    subprocess.run(command, check=True)
    assert ["thermal"] == alarms(doctor(tmp_path))


def test_an_idle_card_that_torch_cannot_use_is_looked_at(driver: Path) -> None:
    """The child that would keep it busy ends by itself; what is seen is of a card at rest, and it is said so."""
    report = doctor(driver, STUB_BUSY="0", STUB_REASONS="1")
    assert [] == alarms(report)
    assert "torch could not use it, so it was only looked at, at rest" in report["subject"]


def test_no_card_is_an_error_that_says_what_to_do(driver: Path) -> None:
    """Without a driver, and with a number that no card has."""
    for options, settings, said in (
        ((), {"STUB_NO_DRIVER": "1"}, "DeviceError: no NVIDIA GPU answers here\n  try    call it on the machine"),
        (("--index", "7"), {}, "DeviceError: there is no GPU 7 here"),
    ):
        with pytest.raises(RuntimeError) as error:
            doctor(driver, *options, **settings)
        assert str(error.value).startswith(said)
