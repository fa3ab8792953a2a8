"""`ganeum doctor compare`: two real runs, and records that were changed or damaged afterwards."""

from __future__ import annotations

import json
import math
import random
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from ganeum import cli
from ganeum.config import load
from ganeum.doctor import compare
from ganeum.doctor.compare import checklist, gap, interval, settings
from ganeum.doctor.compare.side import Side, Stretch
from ganeum.doctor.finding import Report
from ganeum.errors import DataError
from ganeum.hardware.card import card
from ganeum.record import RunDirectory
from ganeum.train.run import train

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
tiny_corpus: Any = import_module("tiny_corpus")

Edit = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with two runs in them, `plain` and `small`, which takes one sequence at once and recomputes."""
    root = tmp_path_factory.mktemp("compared")
    data = tiny_corpus.write(root / "words")
    config = tiny_corpus.config(data, root / "tiny.yaml")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANEUM_RESULTS", str(root / "results"))
        patch.setenv("GANEUM_CACHE", str(root / "cache"))
        common = ["max_iters=20", "log.interval=1", "sample.interval=0", "log.tensorboard=false", "eval_interval=20"]
        common += ["train.checkpoint_interval=20", "train.micro_batch_size=8"]
        changed = ["train.micro_batch_size=1", "train.activation_checkpointing=whole", "train.eval_interval=4"]
        for name, keys in (("plain", []), ("small", changed)):
            train(load(config, [*common, f"name={name}", *keys]), stream=StringIO())
            alone(RunDirectory(root / "results" / name))
    torch.set_num_threads(threads)
    return root / "results"


def alone(run: RunDirectory, others: float = 0.0, waits: float = 0.0) -> RunDirectory:
    """As if other programs had had this share of the processors, and it had waited for this share of each step."""
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    lines = [{**line, "cpu_others": others, "cpu_wait_s": waits * line["step_time_s"]} for line in lines]
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def edited(run: Path, to: Path, edit: Edit) -> RunDirectory:
    """A copy of a run whose lines of metrics went through ``edit``."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("checkpoints"))
    lines = [json.loads(line) for line in (run / "logs" / "metrics.jsonl").read_text().splitlines()]
    (to / "logs" / "metrics.jsonl").write_text("".join(json.dumps(edit(line)) + "\n" for line in lines))
    return RunDirectory(to)


def slower(**seconds: float) -> Edit:
    """So many seconds more in these parts."""

    def edit(line: dict[str, Any]) -> dict[str, Any]:
        more = {f"{part}_s": line[f"{part}_s"] + by for part, by in seconds.items()}
        return {**line, **more, "step_time_s": line["step_time_s"] + sum(seconds.values())}

    return edit


def beside(run: RunDirectory, baseline: RunDirectory) -> Report:
    return compare.report(compare.of_run(run), compare.of_run(baseline))


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
    assert found["per"] == "token that carries loss"
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
    assert ("neither their configs nor what they ran on differ in anything that acts on it",) == one.evidence


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


def test_records_that_are_damaged_short_or_resumed_are_told_in_words(trained: Path, tmp_path: Path) -> None:
    """Torn lines are counted, three steps give no verdict, the first step of each start is left out."""
    plain = RunDirectory(trained / "plain")
    torn = edited(plain.path, tmp_path / "torn", lambda line: line)
    lines = torn.metrics_path.read_text().splitlines()
    lines[5] = lines[5][:40]
    torn.metrics_path.write_text("\n".join(lines) + "\n")
    assert any("1 lines of its metrics could not be read" in line for line in beside(torn, plain).ruled_out)

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
    assert told.facts["gap"]["per"] == "token that carries loss"
    assert told.facts["gap"]["ratio"] == pytest.approx(report.facts["gap"]["ratio"] / 1000)
    with pytest.raises(DataError, match="no times of steps"):
        compare.of_log("Epoch 1: it went well", "diary.txt")
    nano = compare.of_log(f"tokens per iteration will be: 12,288\n{lines}", "nano.log")
    assert nano.tokens == 12_288
    with pytest.raises(DataError) as none:
        compare.of_log('{"loss": 2.5, "step": 10}\n{"loss": 2.4, "step": 20}', "trainer_state.json")
    assert none.value.why == "losses are in it, and no times; a trainer_state.json has none"


def test_settings_are_weighed_by_two_plans() -> None:
    """Recomputation costs by the plan of a card of the catalogue, a name nothing, and the seed is not named."""
    fast = load("configs/one_book.yaml", ["train.activation_checkpointing=none", "train.micro_batch_size=8"])
    slow = load(
        "configs/one_book.yaml",
        ["train.activation_checkpointing=whole", "train.micro_batch_size=8", "seed=7", "log.tensorboard=false"],
    )
    found = {one.key: one for one in settings.differences(slow, fast, card("RTX 4090"), 130_520)}
    assert {"train.activation_checkpointing", "log.tensorboard"} == set(found)
    planned = found["train.activation_checkpointing"].planned
    assert planned is not None
    assert 1.1 < planned < 1.45  # a third more arithmetic in the matrices
    assert "by the plan a token takes 1." in found["train.activation_checkpointing"].sentence()


def stretch(seconds: float, tokens: float | None = 100.0) -> Stretch:
    return Stretch(1, 1, seconds, tokens)


def side(values: list[float], **more: Any) -> Side:
    return Side("it", tuple(stretch(value) for value in values), **more)


def test_the_interval_is_the_published_one() -> None:
    """Mann-Whitney's 95 % bounds: for samples of 5 and 6 the tables' critical value is 3, for 4 and 4 it is 0."""
    ours, theirs = [1.0, 2.0, 3.0, 4.0, 5.0], [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
    every = sorted(a - b for a in ours for b in theirs)
    found = interval.apart(ours, theirs)
    assert (every[3], every[-4]) == found.interval
    small = interval.apart([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0])
    assert (-7.0, -1.0) == small.interval
    assert interval.apart([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]).interval is None  # the tables have none either


def test_the_interval_holds_what_it_promises() -> None:
    """Of 300 pairs of samples a known distance apart, 95 % and more of the intervals hold it."""
    draw, held = random.Random(3), 0
    for _ in range(300):
        ours, theirs = [draw.expovariate(1) + 0.5 for _ in range(10)], [draw.expovariate(1) for _ in range(12)]
        found = interval.apart(ours, theirs).interval
        assert found is not None
        held += found[0] <= 0.5 <= found[1]
    assert held >= 300 * 0.95 - 3 * math.sqrt(300 * 0.05 * 0.95)


def test_a_run_that_changed_on_its_way_is_no_measure() -> None:
    """A baseline whose second half is a third slower hides a tenth, and does not hide three times."""
    uneven = [1.0, 1.01] * 10 + [1.33, 1.34] * 10
    tenth, thrice = (gap.between(side([value * times for value in uneven]), side(uneven)) for times in (1.1, 3.0))
    assert not tenth.is_slower
    assert thrice.is_slower
    assert "such runs differ by 3" in compare.report(side([v * 1.1 for v in uneven]), side(uneven)).headline


def test_forty_pairs_of_equal_runs_raise_no_alarm() -> None:
    """Steps of two parts with noise of a tenth, bursts of others' work among them: nothing is called slower."""
    draw = random.Random(5)

    def run() -> Side:
        rows, busy = [], 1.0
        for step in range(60):
            busy = draw.choice([1.0, 1.0, 1.0, 1.6]) if draw.random() < 0.2 else busy
            parts = {
                name: seconds * busy * draw.lognormvariate(0, 0.1)
                for name, seconds in (("forward", 1.0), ("backward", 2.0))
            }
            rows.append(Stretch(step, 1, sum(parts.values()), 100.0, parts))
        return Side("it", tuple(rows))

    reports = [compare.report(run(), run()) for _ in range(40)]
    assert [] == [one.title for report in reports for one in report.alarms]


@pytest.mark.parametrize(
    ("loss", "verdict"), [(math.log(257) + 0.1, "good"), (0.3, "bad"), (40.0, "bad"), (float("nan"), "bad")]
)
def test_the_first_loss_of_a_fresh_model_is_judged(loss: float, verdict: str, trained: Path) -> None:
    """Near ln(vocabulary) or not; of a trained one, or of a later step, nothing is said."""
    config = load(trained / "plain" / "config.yaml", [])
    known = {"plan": {"model": {"vocab_size": 257}}, "losses": {1: loss}}
    assert verdict == checklist.first_loss(side([1.0], config=config, **known)).verdict
    if math.isfinite(loss):
        later = side([1.0], config=config, plan=known["plan"], losses={50: loss})
        assert "not known" == checklist.first_loss(later).verdict
        assert "not known" == checklist.first_loss(side([1.0], **known)).verdict


def test_a_norm_is_judged_by_its_own_running_median() -> None:
    """A norm of 30 throughout is nobody's alarm; one of 8 among 0.5 is, at its step."""
    high = checklist.gradient_norm(side([1.0], norms={n: 30.0 + n % 3 for n in range(1, 60)}))
    assert "good" == high.verdict
    jump = checklist.gradient_norm(side([1.0], norms={n: 8.0 if n == 40 else 0.5 for n in range(1, 60)}))
    assert ("bad", "gradient_norm") == (jump.verdict, jump.cause)
    assert "16 times its own running median at step 40" in jump.why


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
