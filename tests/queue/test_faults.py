"""A few rounds of benchmarks/queue_faults.py.

Many: GANEUM_FAULT_ROUNDS=500 pytest -m campaign -s tests/queue/test_faults.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "queue_faults.py"
ROUNDS = int(os.environ.get("GANEUM_FAULT_ROUNDS", 100))
SEED = int(os.environ.get("GANEUM_FAULT_SEED", 1))

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it kills processes that it finds in /proc")


def campaign(tmp_path: Path, *words: str) -> dict[str, Any]:
    summary = tmp_path / "summary.json"
    command = [sys.executable, str(SCRIPT), "--keep", str(tmp_path / "world"), "-o", str(summary), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert summary.exists(), done.stderr
    told: dict[str, Any] = json.loads(summary.read_text())
    assert [] == told["broken"]
    assert told["runs"] == told["finished"]
    return told


def test_a_few_accidents_lose_nothing(tmp_path: Path) -> None:
    """Two managers, runs of two seconds, six rounds: all runs finish, each trained by one process at a time."""
    assert 6 == campaign(tmp_path, "--rounds", "6", "--seed", "7")["rounds"]


@pytest.mark.campaign
def test_many_accidents_lose_nothing(tmp_path: Path) -> None:
    """GANEUM_FAULT_ROUNDS rounds from GANEUM_FAULT_SEED on, with stand-ins."""
    print(json.dumps(campaign(tmp_path, "--rounds", str(ROUNDS), "--seed", str(SEED)), indent=2))


@pytest.mark.campaign
def test_many_accidents_of_real_trainings_change_no_weight(tmp_path: Path) -> None:
    """A fifth as many with `ganeum train`: what was killed, resumed and rebooted ends with the same weights."""
    told = campaign(tmp_path, "--rounds", str(max(1, ROUNDS // 5)), "--seed", str(SEED), "--real")
    print(json.dumps(told, indent=2))
    assert 1 == told["different_weights"]
