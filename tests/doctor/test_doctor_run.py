"""`ganeum doctor run`: the command as a user calls it, on a training with one cause of slowness."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ganeum import cli
from ganeum.errors import ConfigError

TRAININGS = Path(__file__).with_name("trainings.py")


def test_a_loader_that_is_waited_for_is_found(tmp_path: Path) -> None:
    """Batches take 20 ms, steps one: the loader is named, thrice as fast at least without it, in text and JSON."""
    words = [
        "doctor",
        "run",
        "--script",
        f"{TRAININGS}:waiting",
        "--minutes",
        "0.12",
        "-o",
        str(tmp_path / "doctor.json"),
    ]
    done = CliRunner().invoke(cli.build(), words)
    assert done.exit_code == 0, done.output
    assert "as it is" in done.output
    told = json.loads((tmp_path / "doctor.json").read_text())
    loader = [finding for finding in told["findings"] if finding["cause"] == "loader" and finding["sure"] == "measured"]
    assert loader, done.output
    assert loader[0]["size"] > 2 / 3
    assert told["facts"]["together"]["ratio"] > 3
    assert told["facts"]["phases"]["data"] > 0.5


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "one config is asked for, or --script"),
        (["a.yaml", "--script", "b.py:build"], "one config is asked for, or --script"),
        (["--script", "b.py:build", "--apply", "c.yaml"], "--apply writes a config of ours, and --script has none"),
        (["--script", "b.py"], "--script names no function: b.py"),
        (["--script", "absent.py:build"], "there is no file absent.py"),
        (["--script", "b.py:build", "--quick", "--minutes", "3"], "--quick and --minutes say two things"),
    ],
)
def test_what_cannot_be_measured_is_refused(words: list[str], told: str) -> None:
    """What is missing or too much is said before anything starts."""
    refused = CliRunner().invoke(cli.build(), ["doctor", "run", *words])
    assert isinstance(refused.exception, ConfigError)
    assert refused.exception.what == told
