"""`ganeum doctor compare`: records that are damaged, cut short, resumed or somebody else's, and the command."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from compared import beside, edited, slower
from typer.testing import CliRunner

from ganeum import cli
from ganeum.doctor import compare
from ganeum.errors import DataError
from ganeum.record import RunDirectory, Status
from ganeum.record.status import State


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


def test_a_run_whose_pace_changed_at_a_later_start_is_told(trained: Path, tmp_path: Path) -> None:
    """Three times as long since its second start: a note that says so, since what it then ran on is not recorded; a
    start that changed nothing has none."""
    plain = RunDirectory(trained / "plain")

    def edit(line: dict[str, Any]) -> dict[str, Any]:
        return slower(forward=2 * line["step_time_s"])(line) if line["step"] > 10 else line

    for name, change, told in (("moved", edit, 1), ("same", lambda line: line, 0)):
        run = edited(plain.path, tmp_path / name, change)
        run.console_path.write_text("going on from step 10\n")
        report = beside(run, plain)
        found = [one for one in report.findings if "after its start at step 10" in one.title]
        assert told == len(found)
        assert () == report.alarms
        assert any(f"{name} was started again at step 10" in line for line in report.ruled_out)
    assert all("environment.json is of its first start" in one.evidence[0] for one in found)


@pytest.mark.parametrize(
    ("state", "error", "told"),
    [
        ("failed", "RunError: out of memory\n  where  here", "failed after step 8 of 20: what it logged until then is"),
        ("failed", [1], "failed after step 8 of 20: what it logged until then is compared ([1])"),
        ("interrupted", None, "was interrupted at step 8 of 20"),
        ("running", None, "ended without a word after step 8 of 20"),
        ("finished", None, None),
    ],
)
def test_a_run_that_ended_early_is_told(
    state: State, error: Any, told: str | None, trained: Path, tmp_path: Path
) -> None:
    """How it ended, where, and why, where its status says so."""
    plain = RunDirectory(trained / "plain")
    run = edited(plain.path, tmp_path / "run", lambda line: line)
    run.metrics_path.write_text("".join(line + "\n" for line in run.metrics_path.read_text().splitlines()[:8]))
    Status(state, 4, error).write(run.status_path)
    report = beside(run, plain)
    lines = [line for line in report.ruled_out if line.startswith("run ")]
    assert (told is not None) == bool(lines)
    assert told is None or told in lines[0]
    assert not isinstance(error, str) or lines[0].endswith("(RunError: out of memory)")
    assert () == report.alarms


def test_the_step_that_a_run_ended_after_is_its_last_whatever_is_compared(trained: Path, tmp_path: Path) -> None:
    """Steps that others disturbed are left out, the later ones of a run that failed at its end among them."""
    plain = RunDirectory(trained / "plain")
    run = edited(plain.path, tmp_path / "run", lambda line: line | ({"cpu_others": 0.5} if line["step"] > 15 else {}))
    Status("failed", 20, "RunError: no space").write(run.status_path)
    told = beside(run, plain).ruled_out
    assert any("are left out: 5 of run" in line for line in told)
    assert any(line.startswith("run failed after step 20 of 20") for line in told)


def test_sensors_that_somebody_mutilated_are_left_out(trained: Path, tmp_path: Path) -> None:
    """Texts, lists and nothing in place of figures of `system.jsonl`: the moments that are whole are told."""
    plain = RunDirectory(trained / "plain")
    run = edited(plain.path, tmp_path / "run", lambda line: line)
    whole = {"gpu_utilization_percent": 99, "sm_clock_mhz": 900, "sm_clock_max_mhz": 1900, "power_w": 200.0}
    moments = [{**whole, "elapsed_s": n, "throttle_reasons": ["sw_thermal_slowdown"]} for n in range(20)]
    for name in moments[0]:
        for value in ("text", [[1]], {"a": 1}, None, True):
            moments.insert(len(moments) // 2, {**moments[0], name: value})
    run.system_path.write_text("".join(json.dumps(moment) + "\n" for moment in moments))
    clocks = beside(run, plain).facts["clocks"]["run"]
    assert 900 == clocks["sm_clock_mhz"]
    assert {"sw_thermal_slowdown"} == set(clocks["throttle_reasons"])


def test_memory_that_ran_out_on_the_way_is_told(trained: Path, tmp_path: Path) -> None:
    """From step 9 on its lines have 2 sequences at once, its config 8."""
    plain = RunDirectory(trained / "plain")
    run = edited(
        plain.path, tmp_path / "run", lambda line: line | ({"micro_batch_size": 2} if line["step"] > 8 else {})
    )
    (one,) = beside(run, plain).findings
    assert ("small_micro_batch", "note") == (one.cause, one.severity)
    assert "run ran out of memory: from step 9 on 2 sequences at once in place of 8" == one.title


def test_a_config_of_another_version_is_told(trained: Path, tmp_path: Path) -> None:
    """A key that this version does not know: the times are compared, and the reason stands there."""
    plain = RunDirectory(trained / "plain")
    run = edited(plain.path, tmp_path / "run", lambda line: line)
    run.config_path.write_text(run.config_path.read_text() + "hyper: 3\n")
    report = beside(run, plain)
    assert report.headline.startswith("no measurable difference")
    assert any(
        "run: its config.yaml could not be read, so settings are not compared: " in it for it in report.ruled_out
    )


def test_records_that_somebody_mutilated_have_no_traceback(trained: Path, tmp_path: Path) -> None:
    """Values of other types in plan, environment and status, two at a time: an answer all the same."""
    plain = RunDirectory(trained / "plain")
    run, draw = edited(plain.path, tmp_path / "run", lambda line: line), random.Random(3)
    other = compare.of_run(plain)
    for path in (run.plan_path, run.environment_path, run.status_path):
        whole = path.read_text()
        for _ in range(12):
            content = json.loads(whole)
            for _ in range(2):
                place = content
                while (
                    isinstance(inner := place[key := draw.choice(list(place))], dict) and inner and draw.random() < 0.7
                ):
                    place = inner
                place[key] = draw.choice([None, True, -1, "text", [], [1], {}, {"a": 1}])
            path.write_text(json.dumps(content))
            side = compare.of_run(run)
            for report in (compare.report(side, other), compare.report(other, side)):
                assert report.text()
                assert json.loads(report.json())
        path.write_text(whole)


def test_another_record_of_one_kind_of_logs_is_read_as_a_log(tmp_path: Path) -> None:
    """A metrics.jsonl of somebody else's has no step of ours; where it says no times, that is told."""
    theirs = tmp_path / "metrics.jsonl"
    theirs.write_text("".join(json.dumps({"step": n, "loss": 2.5}) + "\n" for n in range(1, 9)))
    assert compare.of_metrics(theirs, "theirs") is None
    done = CliRunner().invoke(cli.build(), ["doctor", "compare", str(theirs), str(theirs)])
    assert isinstance(done.exception, DataError)
    assert "no times of steps are in it" in str(done.exception)


def test_a_place_within_a_run_is_the_run_and_a_run_is_not_held_against_itself(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its config, its log or a checkpoint name it; the same on both sides is refused in words."""
    monkeypatch.setenv("GANEUM_RESULTS", str(trained))
    monkeypatch.setattr(sys, "argv", ["ganeum"])
    for within in ("config.yaml", "logs/console.log", "checkpoints/step-00000020", "logs"):
        with pytest.raises(SystemExit) as end:
            cli.main(["doctor", "compare", str(trained / "plain" / within), "plain"])
        assert end.value.code == 2
        assert "both are the same: plain" in capsys.readouterr().err


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
    refused = (
        (["-", "-"], "standard input cannot be both"),
        ([str(tmp_path), "plain"], "not a run's dir"),
        ([os.devnull, "plain"], "no times of steps are in it"),  # no file and no directory: as a pipe
    )
    for words, told in refused:
        with pytest.raises(SystemExit):
            cli.main(["doctor", "compare", *words])
        assert told in capsys.readouterr().err
