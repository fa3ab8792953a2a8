"""`ganeum doctor compare`: two real runs, and what is told of them after their records were changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from compared import Edit, alone, beside, edited, slower

from ganeum.doctor import compare
from ganeum.record import RunDirectory


def test_what_other_programs_can_do_is_no_alarm(trained: Path, tmp_path: Path) -> None:
    """Three times as long while others had the machine: not comparable, as a note; the same alone is an alarm, and so
    is ten times as long."""
    plain = RunDirectory(trained / "plain")

    def times(by: float) -> Edit:
        return lambda line: {k: v * by if k.endswith("_s") and k != "elapsed_s" else v for k, v in line.items()}

    run = edited(plain.path, tmp_path / "run", times(3))
    assert beside(run, plain).alarms
    report = beside(alone(run, 0.9, 0.5), plain)
    assert () == report.alarms
    assert "other_processes" in {one.cause for one in report.findings}
    assert report.headline.startswith("not comparable: it takes 3 ")
    assert "90% of the machine's processors meanwhile, beside the baseline 0%" in report.headline
    assert beside(alone(edited(plain.path, tmp_path / "ten", times(10)), 0.9, 0.5), plain).alarms
    both = alone(edited(plain.path, tmp_path / "both", lambda line: line), 0.9, 0.1)
    assert () == beside(alone(edited(plain.path, tmp_path / "twice", times(1.8)), 0.9, 0.1), both).alarms


def test_steps_that_others_disturbed_are_left_out(trained: Path, tmp_path: Path) -> None:
    """Every other of the later steps three times as long while a neighbour worked: nothing is left of it."""
    plain = RunDirectory(trained / "plain")

    def neighbour(line: dict[str, Any]) -> dict[str, Any]:
        if line["step"] < 14:
            return line
        return {**slower(forward=2 * line["step_time_s"])(line), "cpu_others": 0.5}

    report = beside(edited(plain.path, tmp_path / "run", neighbour), plain)
    assert () == report.findings
    assert report.facts["gap"]["ratio"] == pytest.approx(1, rel=0.2)
    assert any("are left out: 7 of " in line for line in report.ruled_out)


def test_two_real_runs_are_told_apart_by_what_was_changed(trained: Path) -> None:
    """One sequence at once and recomputation are found in forward and backward, with both keys; nothing else is."""
    report = beside(RunDirectory(trained / "small"), RunDirectory(trained / "plain"))
    found = report.facts["gap"]
    assert found["per"] == "token"
    assert found["interval"][0] > 1.5  # eight passes for one
    computing = [one for one in report.findings if one.title.startswith(("forward", "backward"))]
    assert computing
    assert all("train.micro_batch_size" in one.change for one in computing)
    assert "small_micro_batch" in {one.cause for one in computing}
    assert any("train.activation_checkpointing: whole, the baseline none" in line for line in computing[0].evidence)
    assert not {"loader", "first_loss", "learning"} & {one.cause for one in report.alarms}
    assert "  a step  " in report.drawn
    assert "✓ first loss" in report.drawn


def test_a_run_beside_itself_is_silent(trained: Path) -> None:
    """No finding, no measurable difference, and what is the same is said."""
    plain = RunDirectory(trained / "plain")
    report = beside(plain, plain)
    assert () == report.findings
    assert report.headline.startswith("no measurable difference")
    assert any("the config: no key differs" in line for line in report.ruled_out)
    assert any(line.startswith("versions, device") for line in report.ruled_out)


@pytest.mark.parametrize(
    ("part", "cause"), [("data", "loader"), ("optimizer", "slow_optimizer"), ("other", "unexplained_time")]
)
def test_a_part_that_takes_longer_is_named_with_its_size(trained: Path, tmp_path: Path, part: str, cause: str) -> None:
    """Two steps' time more in one part: two thirds of the time, within its interval, and the only alarm."""
    plain = RunDirectory(trained / "plain")
    usual = compare.of_run(plain).step_s
    report = beside(edited(plain.path, tmp_path / "run", slower(**{part: 2 * usual})), plain)
    (one,) = report.alarms
    assert cause == one.cause
    assert one.size == pytest.approx(2 / 3, rel=0.1)
    assert one.interval is not None
    assert one.interval[0] - 0.03 < 2 / 3 < one.interval[1] + 0.03
    assert (
        "neither their configs nor what they ran on differ in anything that acts on it",
        "its processors are at work for 1.00 times as long: most of the difference is waiting",
    ) == one.evidence


def test_records_that_do_not_tell_of_other_programs_raise_no_alarm_without_a_reason(
    trained: Path, tmp_path: Path
) -> None:
    """Three times as long in one part, in records of before 2026-11-22: a note, since others could have done it; with
    another number of threads it is an alarm."""
    plain = RunDirectory(trained / "plain")
    times = slower(forward=2 * compare.of_run(plain).step_s)
    old = edited(plain.path, tmp_path / "old", lambda line: {**times(line), "cpu_others": None})
    report = beside(old, plain)
    assert () == report.alarms
    (one,) = report.findings
    assert any(line.endswith("and these records do not show it") for line in one.evidence)
    told = json.loads(old.environment_path.read_text())
    told["variables"]["OMP_NUM_THREADS"] = "64"
    old.environment_path.write_text(json.dumps(told))
    assert "oversubscription" == beside(old, plain).alarms[0].cause


def test_evaluations_are_beside_the_steps(trained: Path, tmp_path: Path) -> None:
    """A clock that ran on between the steps is not the step's: it is told as evaluations and the like."""
    plain = RunDirectory(trained / "plain")
    usual = compare.of_run(plain).step_s

    def edit(line: dict[str, Any]) -> dict[str, Any]:
        return {**line, "elapsed_s": line["elapsed_s"] + 2 * usual * line["step"]}

    report = beside(edited(plain.path, tmp_path / "run", edit), plain)
    (one,) = report.alarms
    assert "too_often" == one.cause
    assert report.facts["gap"]["ratio_with_what_is_beside_the_steps"] > 2
    assert report.headline.startswith("no measurable difference")


def test_padding_and_other_shapes_count_by_tokens_that_carry_loss(trained: Path, tmp_path: Path) -> None:
    """Half of the tokens in the same time is twice as slow, and the padding is named."""
    plain = RunDirectory(trained / "plain")

    def half(line: dict[str, Any]) -> dict[str, Any]:
        return {**line, "tokens_seen": line["tokens_seen"] // 2, "padding": 0.5}

    run = edited(plain.path, tmp_path / "run", half)
    report = beside(run, edited(plain.path, tmp_path / "base", lambda line: {**line, "padding": 0.0}))
    assert report.facts["gap"]["ratio"] == pytest.approx(2, rel=0.01)
    (one,) = [finding for finding in report.findings if finding.cause == "padding"]
    assert one.size == pytest.approx(0.5)


def test_a_slow_clock_explains_slow_computing(trained: Path, tmp_path: Path) -> None:
    """Both watched at work, one at half the clock, held down by heat: that is the finding, and no part beside it."""
    plain = RunDirectory(trained / "plain")

    def double(line: dict[str, Any]) -> dict[str, Any]:
        return slower(forward=line["forward_s"], backward=line["backward_s"])(line)

    run = edited(plain.path, tmp_path / "run", double)
    base = edited(plain.path, tmp_path / "base", lambda line: line)
    for directory, clock, reasons in ((run, 900, ["sw_thermal_slowdown"]), (base, 1800, [])):
        lines = [
            {"elapsed_s": float(n), "gpu_utilization_percent": 99, "sm_clock_mhz": clock, "sm_clock_max_mhz": 1900}
            | {"throttle_reasons": reasons, "temperature_c": 88, "power_w": 200.0}
            for n in range(20)
        ]
        directory.system_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (one,) = beside(run, base).alarms
    assert ("thermal", 0.5) == (one.cause, one.size)
    assert any("SM clock at work: 900 MHz, the baseline 1,800 MHz" in line for line in one.evidence)


def test_versions_variables_and_devices_that_differ_are_told(trained: Path, tmp_path: Path) -> None:
    """Another torch and another number of threads stand with the parts that they act on."""
    plain = RunDirectory(trained / "plain")
    usual = compare.of_run(plain).step_s
    run = edited(plain.path, tmp_path / "run", slower(forward=usual, backward=0.5 * usual))
    told = json.loads(run.environment_path.read_text())
    told["packages"]["torch"], told["variables"]["OMP_NUM_THREADS"] = "2.11.0", "64"
    run.environment_path.write_text(json.dumps(told))
    run.plan_path.write_text(json.dumps({**json.loads(run.plan_path.read_text()), "device": {"name": "another CPU"}}))
    report = beside(run, plain)
    one = report.alarms[0]
    assert "oversubscription" == one.cause
    assert any(line.startswith("torch: 2.11.0, the baseline ") for line in one.evidence)
    assert {"torch", "OMP_NUM_THREADS"} <= set(report.facts["machine"])
    assert "on another device (device: another CPU, the baseline " in report.headline


def test_a_run_that_learns_less_of_as_many_tokens_is_not_simply_faster(trained: Path, tmp_path: Path) -> None:
    """Half the time, and a validation loss that is worse: told beside the speed."""
    plain = RunDirectory(trained / "plain")

    def edit(line: dict[str, Any]) -> dict[str, Any]:
        worse = {"val_loss": line["val_loss"] + 1} if line.get("val_loss") else {}
        return {**line, **worse}

    report = beside(edited(plain.path, tmp_path / "run", edit), plain)
    assert ["learning"] == [one.cause for one in report.alarms]


def test_other_text_or_another_length_is_no_measure_of_learning(trained: Path, tmp_path: Path) -> None:
    """The losses of other held-out text, and of a schedule of another length, are told and not judged."""
    plain = RunDirectory(trained / "plain")
    worse = {"val_loss": 9.0}
    run = edited(plain.path, tmp_path / "run", lambda line: {**line, **(worse if line.get("val_loss") else {})})
    plan = json.loads(plain.plan_path.read_text())
    for told in ({"identity": {"val": "another"}}, {"tokens_seen": 10}):
        run.plan_path.write_text(json.dumps({**plan, "data": {**plan["data"], **told}}))
        assert () == beside(run, plain).alarms


def test_threads_are_one_reason_for_all_parts(trained: Path, tmp_path: Path) -> None:
    """Another OMP_NUM_THREADS: one finding for whatever it slows, with what the baseline has."""
    plain = RunDirectory(trained / "plain")
    usual = compare.of_run(plain).step_s
    run = edited(plain.path, tmp_path / "run", slower(forward=usual, backward=4 * usual, optimizer=usual))
    told = json.loads(run.environment_path.read_text())
    for directory, threads in ((run, "64"), (edited(plain.path, tmp_path / "base", lambda line: line), "1")):
        told["variables"]["OMP_NUM_THREADS"] = threads
        directory.environment_path.write_text(json.dumps(told))
    (one,) = beside(run, RunDirectory(tmp_path / "base")).alarms
    assert "oversubscription" == one.cause
    assert "as the baseline has it: OMP_NUM_THREADS=1" == one.change
