"""`ganeum doctor compare`: records that are damaged, cut short, resumed or somebody else's, and the command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from compared import beside, edited
from typer.testing import CliRunner

from ganeum import cli
from ganeum.doctor import compare
from ganeum.errors import DataError
from ganeum.record import RunDirectory


def test_records_that_are_damaged_short_or_resumed_are_told_in_words(trained: Path, tmp_path: Path) -> None:
    """Torn lines are counted, three steps give no verdict, the first step of each start is left out."""
    plain = RunDirectory(trained / "plain")
    torn = edited(plain.path, tmp_path / "torn", lambda line: line)
    lines = torn.metrics_path.read_text().splitlines()
    lines[5] = lines[5][:40]
    torn.metrics_path.write_text("\n".join(lines) + "\n")
    assert "torn: 1 line of its metrics could not be read, left out" in beside(torn, plain).ruled_out

    short = edited(plain.path, tmp_path / "short", lambda line: line)
    short.metrics_path.write_text("\n".join(lines[:4]) + "\n")
    report = beside(short, plain)
    assert "too few steps are logged for an interval" in report.headline
    assert "– time of a step" in report.drawn
    assert () == report.alarms

    resumed = edited(plain.path, tmp_path / "resumed", lambda line: line)
    resumed.console_path.write_text("going on from step 10\n")
    side = compare.of_run(resumed)
    assert 11 not in {one.step for one in side.stretches}
    assert any("started again at step 10" in line for line in beside(resumed, plain).ruled_out)

    empty = edited(plain.path, tmp_path / "empty", lambda line: line)
    empty.metrics_path.write_text(lines[0] + "\n")
    with pytest.raises(DataError, match="no step that could be compared"):
        compare.of_run(empty)


def test_a_log_of_somebody_elses_is_compared_by_steps_or_by_tokens(trained: Path) -> None:
    """Without tokens the comparison is of steps and says so; with them it is of tokens."""
    lines = "\n".join(f"iter {n}: loss {5.5 - n / 50:.4f}, time {3000 + n % 3:.2f}ms, mfu 1.00%" for n in range(30))
    plain = compare.of_run(RunDirectory(trained / "plain"))
    report = compare.report(compare.of_log(lines, "train.log"), plain)
    assert "for a step (tokens are not said" in report.headline
    assert report.facts["gap"]["interval"][0] > 3
    told = compare.report(compare.of_log(lines, "train.log", tokens=256_000), plain)
    assert told.facts["gap"]["per"] == "token"
    assert told.facts["gap"]["ratio"] == pytest.approx(report.facts["gap"]["ratio"] / 1000)
    with pytest.raises(DataError, match="no times of steps"):
        compare.of_log("Epoch 1: it went well", "diary.txt")
    nano = compare.of_log(f"tokens per iteration will be: 12,288\n{lines}", "nano.log")
    assert nano.tokens == 12_288
    with pytest.raises(DataError) as none:
        compare.of_log('{"loss": 2.5, "step": 10}\n{"loss": 2.4, "step": 20}', "trainer_state.json")
    assert none.value.why == "losses are in it, and no times; a trainer_state.json has none"


def test_the_command_answers_in_text_json_and_words(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a run's name, a directory, a metrics.jsonl and a log; what is none of them is an error in words."""
    monkeypatch.setenv("GANEUM_RESULTS", str(trained))
    out = tmp_path / "doctor.json"
    metrics = trained / "small" / "logs" / "metrics.jsonl"
    for arguments in (["small", "plain"], [str(metrics), str(trained / "plain")]):
        done = CliRunner().invoke(cli.build(), ["doctor", "compare", *arguments, "--json", "-o", str(out)])
        assert done.exit_code == 0, done.output
        assert json.loads(out.read_text())["facts"]["gap"]["interval"][0] > 1.5
    monkeypatch.setattr(sys, "argv", ["ganeum"])
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", "compare", "plane", "plain"])
    assert end.value.code == 2
    assert "plane is neither a run nor a file" in (said := capsys.readouterr().err)
    assert "try    plain" in said
    for words, told in ((["-", "-"], "standard input cannot be both"), ([str(tmp_path), "plain"], "not a run's dir")):
        with pytest.raises(SystemExit):
            cli.main(["doctor", "compare", *words])
        assert told in capsys.readouterr().err
