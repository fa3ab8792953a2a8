"""A few rounds of benchmarks/queue_faults.py, and what its word is worth.

Many: GANEUM_FAULT_ROUNDS=500 pytest -m campaign -s tests/queue/test_faults.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "queue_faults.py"
SRC = Path(__file__).parents[2] / "src" / "ganeum"
PARTS = (SRC / "record", SRC / "train", SRC / "queue", SCRIPT.parent)
ROUNDS = int(os.environ.get("GANEUM_FAULT_ROUNDS", 100))
SEED = int(os.environ.get("GANEUM_FAULT_SEED", 1))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it kills processes that it finds in /proc"),
]


def told_by(script: Path, tmp_path: Path, *words: str) -> dict[str, Any]:
    if shutil.which("gcc") is None:
        pytest.skip("what meets a process at one of its changes to files is compiled")
    summary = tmp_path / "summary.json"
    command = [sys.executable, str(script), "--keep", str(tmp_path / "world"), "-o", str(summary), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert summary.exists(), done.stderr
    told: dict[str, Any] = json.loads(summary.read_text())
    return told


def campaign(tmp_path: Path, *words: str) -> dict[str, Any]:
    told = told_by(SCRIPT, tmp_path, *words)
    assert [] == told["broken"]
    assert told["runs"] == told["finished"]
    return told


def test_a_few_accidents_lose_nothing(tmp_path: Path) -> None:
    """Two managers, runs of two seconds, six rounds: all runs finish, each trained by one process at a time."""
    assert 6 == campaign(tmp_path, "--rounds", "6", "--seed", "7")["rounds"]


FORBIDDEN = (
    r"run\d+x?: trained by two processes at once \(run\d+x?\.\d+\)",
    r"run\d+x?: started after it had finished",
    r"run\d+x?: a checkpoint was lost",
    r"process \d+ belongs to no entry that runs",
    r"run\d+x? is gone",
    r"run\d+x? is running, and nothing of it lives",
    r"run\d+x?: trained by two processes at once \(processes \d+, \d+\)",
)


def test_what_must_never_be_is_seen(tmp_path: Path) -> None:
    """Seven things are planted that a queue must never do; the campaign names each of them. A run takes two seconds,
    and on a busy machine may end before what is planted reaches it: then all are planted once more."""
    for attempt in range(3):
        (directory := tmp_path / str(attempt)).mkdir()
        try:
            broken = told_by(Path(__file__).with_name("planted.py"), directory)["broken"]
            unseen = [sentence for sentence in FORBIDDEN if not any(re.search(sentence, one) for one in broken)]
        except AssertionError as error:  # the campaign ended without a summary
            unseen = [str(error)]
        if not unseen:
            return
    assert [] == unseen


def test_the_moments_are_those_of_functions_that_exist() -> None:
    """What the campaign calls by the name of a function would go by no name once that is called otherwise."""
    there = {path.stem: path.read_text() for part in PARTS for path in part.glob("*.py")}
    named = re.search(r"^MOMENTS = .*?^}", (SCRIPT.parent / "queue_world.py").read_text(), re.S | re.M)
    assert named
    functions = re.findall(r'"(\w+)\.(\w+)": "', named[0])
    assert len(functions) > 10
    assert [] == [name for module, name in functions if f"def {name}(" not in there[module]]


def test_the_pages_say_what_was_measured() -> None:
    """`python benchmarks/queue_faults.py --write` would change nothing, and nothing has broken."""
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import queue_faults
    finally:
        sys.path.pop(0)
    told = queue_faults.results()
    for path in queue_faults.PAGES:
        assert (SCRIPT.parents[1] / path).read_text(encoding="utf-8") == queue_faults.page(path, told)
    for real in (True, False):
        assert 500 <= sum(one["rounds"] for one in told if ("train" in one["trainings"].split()) == real)
    assert [] == [line for one in told for line in one["broken"]]


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
