"""A config of ours as the doctor measures it: the run's own steps, keys that help, work beside the steps."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_corpus
import tiny_pairs

from ganeum.config import Config, load
from ganeum.config.change import change
from ganeum.doctor.measured import acts, apply, facts, left, ours, periodic, remedies
from ganeum.doctor.measured.answer import Course
from ganeum.doctor.measured.periodic import Periodic, Work, weighed
from ganeum.doctor.measured.remedy import Remedy
from ganeum.errors import ConfigError, RunError
from ganeum.record import RunDirectory


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pairs.write(tmp_path_factory.mktemp("pairs") / "pairs")


def losses(config: Config, steps: int = 3) -> list[float]:
    training = ours.training(config)
    return [float(training.step(batch)) for batch, _ in zip(training.batches, range(steps), strict=False)]


def test_its_steps_are_the_run_s(data: Path, here: Path) -> None:
    """With every auto decided alike, dropout drawn alike and the learning rate of each step: the same losses."""
    yaml = tiny_corpus.config(data, here / "auto.yaml")
    free = ("max_iters=3", "micro_batch_size=auto", "precision=auto", "log.interval=1", "eval_interval=auto")
    tiny_corpus.go(yaml, *free)
    logged = [line["loss"] for line in tiny_corpus.metrics("auto")]
    training = ours.training(load(yaml, free))
    assert [float(training.step(batch)) for batch in training.batches] == logged
    assert training.config is not None
    run = RunDirectory(here / "results" / "auto")
    stored = load(run.config_path)
    assert change(training.config, {"name": None}) == change(stored, {"name": None})


def test_the_steps_of_an_adopted_model_are_the_run_s(pairs: Path, here: Path) -> None:
    """A T5 that learns from pairs in buckets; its tokens are counted as the run's log counts them."""
    yaml = tiny_pairs.config(pairs, here / "t5.yaml")
    tiny_corpus.go(yaml, "max_iters=3", "data.batching=buckets")
    logged = tiny_corpus.metrics("t5")
    config = load(yaml, ("max_iters=3", "data.batching=buckets"))
    assert losses(config) == [line["loss"] for line in logged]
    training = ours.training(config)
    assert training.tokens is not None
    assert sum(training.tokens(batch) for batch in training.batches) == logged[-1]["tokens_seen"]


def test_a_run_that_cannot_fit_is_refused_without_an_option_of_training(yaml: Path) -> None:
    """What would fit is told, and not --force, which a diagnosis does not have."""
    with pytest.raises(RunError, match="cannot fit into the memory") as told:
        ours.training(load(yaml, ("model.n_embd=16384", "model.n_head=128", "model.n_layer=512")))
    assert told.value.suggestion
    assert "--force" not in told.value.suggestion


def chosen(config: Config) -> tuple[Config, dict[str, Remedy]]:
    training = ours.training(config)
    found = facts.of(training)
    decided = Config.model_validate(found["decided"])
    return decided, {one.name: one for one in remedies.of_config(decided, found)}


def test_keys_that_may_help_leave_the_learning_as_it_is(yaml: Path) -> None:
    """Recomputation, a micro-batch of one and a small loss_chunk are changed by keys; each variant is decided from the
    run's own config, and its losses are the same."""
    slow = ("activation_checkpointing=whole", "micro_batch_size=1", "loss_chunk=16", "dropout=0.0")
    decided, found = chosen(load(yaml, slow))
    keys = {key: value for one in found.values() for key, value in one.keys.items()}
    assert keys["train.activation_checkpointing"] == "none"
    assert keys["train.loss_chunk"] == "auto"
    assert {one.keys["train.micro_batch_size"] for one in found.values() if one.group == "micro-batch"} == {2, 8}
    assert list(found).index("8 at once") < list(found).index("nothing recomputed") < list(found).index("2 at once")
    as_it_is = losses(decided)
    for one in found.values():
        if one.keys and one.same_learning:
            tolerance = 2e-2 if one.group == "precision" else 1e-4
            assert losses(change(decided, one.keys)) == pytest.approx(as_it_is, rel=tolerance), one.name


def test_rows_filled_up_to_the_longest_are_put_into_buckets_or_packed(pairs: Path, here: Path) -> None:
    """The same examples are learnt from in each step, and their losses are the same."""
    yaml = tiny_pairs.config(pairs, here / "t5.yaml")
    decided, found = chosen(load(yaml, ("data.batching=fixed", "model.dropout=0.0")))
    as_it_is = losses(decided)
    for name in ("buckets", "packed"):
        assert found[name].keys == {"data.batching": name}
        assert losses(change(decided, found[name].keys)) == pytest.approx(as_it_is, rel=1e-3)


def test_a_run_that_is_set_well_gets_no_key_for_it(yaml: Path) -> None:
    """What is as it would be chosen is not tried."""
    _, found = chosen(load(yaml, ("micro_batch_size=8", "precision=auto")))
    keys = {key for one in found.values() for key in one.keys}
    assert keys <= {"train.micro_batch_size"}
    assert "no hooks" not in found


def test_batches_of_ours_are_kept_cut(pairs: Path, here: Path) -> None:
    """Kept in memory, they are put together once; the same is learnt from them."""
    config = load(tiny_pairs.config(pairs, here / "t5.yaml"))
    as_it_is = losses(config)
    training = acts.kept_batches(ours.training(config))
    assert [float(training.step(batch)) for batch, _ in zip(training.batches, range(3), strict=False)] == as_it_is
    first = next(iter(training.batches))
    assert all(a is b for a, b in zip(first.micro_batches(4), first.micro_batches(4), strict=True))


def test_overlap_is_told_and_not_tried(yaml: Path) -> None:
    """Tokens per second are the same with it; an epoch is longer."""
    config = change(load(yaml), {"data.order": "epochs", "data.stride": 8})
    (finding,) = remedies.told({}, config)
    assert (finding.cause, finding.size, finding.unit) == ("overlapping_windows", 4.0, "times the steps of an epoch")
    assert remedies.told({}, change(config, {"data.stride": 32})) == []
    assert remedies.told({}, change(config, {"data.order": "random"})) == []


# ------------------------------------------------------------------------------------ beside the steps


def test_work_beside_the_steps_is_measured_and_nothing_is_left(yaml: Path, here: Path) -> None:
    """Each kind at least three times, on the disk of the runs."""
    training = ours.training(load(yaml))
    found = {work.name: work for work in periodic.works(training, 2.0)}
    assert list(found) == ["evaluations", "checkpoints", "texts", "logging"]
    assert [work.interval for work in found.values()] == [5, 4, 10, 2]
    assert all(len(work.seconds) >= 3 and min(work.seconds) > 0 for work in found.values())
    assert [path.name for path in here.rglob("*") if "doctor" in path.name] == []
    assert found["evaluations"].kept_s > 0  # every 5 steps, and a checkpoint is due every 4


def test_an_evaluation_that_meets_a_checkpoint_leads_to_none(yaml: Path) -> None:
    """One is written anyway, and counted there."""
    evaluations, *_ = periodic.works(ours.training(load(yaml, ("checkpoint_interval=5", "sample.interval=0"))), 1.0)
    assert (evaluations.name, evaluations.kept_s) == ("evaluations", 0.0)


def test_what_comes_before_work_does_not_count() -> None:
    """A step before each, so that it finds the caches as in the run: in turn, its 50 ms in none of them."""
    order: list[str] = []

    def before() -> None:
        order.append("step")
        time.sleep(0.05)

    seconds = periodic._timed(lambda: order.append("work"), before, 0.0)
    assert order == ["step", "work"] * periodic.LEAST
    assert max(seconds) < 0.025


def test_steps_are_timed_as_the_rest_is(yaml: Path) -> None:
    """A step that sleeps 50 ms takes as long, however fast it was said to be."""
    training = ours.training(load(yaml))
    step = training.step

    def slow(batch: object) -> object:
        time.sleep(0.05)
        return step(batch)

    training.step = slow
    assert 0.05 < periodic.stepping(training, 0.05, 0.1) < 0.5


def test_what_is_never_done_costs_nothing(yaml: Path) -> None:
    """No texts, and no evaluation before the end."""
    training = ours.training(load(yaml, ("sample.interval=0", "eval_interval=50", "checkpoint_interval=50")))
    assert [work.name for work in periodic.works(training, 1.0)] == ["logging"]


def test_shares_are_of_all_the_time(yaml: Path) -> None:
    """2 s every 100 steps of 0.1 s are 0.02 s a step; 3 s every 10 are 0.3 s: of 0.42 s 4.8 % and 71.4 %."""
    config = change(load(yaml), {"train.max_iters": 100_000})
    work = [
        Work("evaluations", "train.eval_interval", 100, (1.9, 2.0, 2.1)),
        Work("checkpoints", "train.checkpoint_interval", 10, (2.9, 3.0, 3.1)),
        Work("logging", "log.interval", 10, (0.001, 0.001, 0.001)),
    ]
    evaluations, checkpoints, rest = weighed(work, config, 0.1)
    assert evaluations.size == pytest.approx(0.02 / 0.4201)
    assert checkpoints.size == pytest.approx(0.3 / 0.4201)
    assert (evaluations.severity, checkpoints.severity, rest.severity) == ("note", "warning", "note")
    assert evaluations.interval is not None
    assert evaluations.interval[0] < evaluations.size < evaluations.interval[1]  # type: ignore[operator]
    assert isinstance(checkpoints, Periodic)
    # At 2,500 steps 3 s are 1.2 ms of 121 ms, a hundredth.
    assert checkpoints.keys == (("train.checkpoint_interval", 2_500),)
    assert checkpoints.change == "train.checkpoint_interval=2500: a crash then loses 5 min 0 s at most"
    assert rest.title == "logging: 0.02% of the time together"
    assert isinstance(evaluations, Periodic)
    assert evaluations.keys == ()


def test_a_checkpoint_belongs_to_the_evaluation_that_leads_to_it(yaml: Path) -> None:
    """1 s, and 1 s to keep what is the best so far, every 10 steps of 0.1 s: from 1/2 to 2/3 of the time, and the run
    gets a tenth of its steps, as auto would say, where a hundredth of the time allows two evaluations at most."""
    config = change(load(yaml), {"train.max_iters": 1_000})
    work = Work("evaluations", "train.eval_interval", 10, (1.0, 1.0, 1.0), tokens=8_000, kept_s=1.0)
    (finding,) = weighed([work], config, 0.1)
    assert finding.size == pytest.approx(2 / 3)
    assert finding.interval == pytest.approx((1 / 2, 2 / 3))
    assert finding.evidence[1] == "a checkpoint of 1.0 s with each that is better than all before"
    assert isinstance(finding, Periodic)
    assert finding.keys == (("train.eval_interval", 100),)


def test_a_run_too_short_for_fewer_evaluations_gets_smaller_ones(yaml: Path) -> None:
    """And so does one that stops by them."""
    work = [Work("evaluations", "train.eval_interval", 10, (1.0, 1.0, 1.0), tokens=8_000)]
    (finding,) = weighed(work, load(yaml), 0.1)
    assert finding.change == "train.eval_tokens=1000, or train.eval_interval larger: the run has 20 steps"
    patient = change(load(yaml), {"train.max_iters": 100_000, "train.patience": 3})
    (finding,) = weighed(work, patient, 0.1)
    assert finding.change.startswith("train.eval_tokens=1000")


def test_a_plan_without_a_time_gives_no_limit(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing says how fast the device is; all that was measured is told nevertheless."""
    monkeypatch.setattr("ganeum.plan.library.plan", lambda _: {})
    workers: Any = SimpleNamespace(subject=load(yaml))
    course = Course("tiny", rate=1.0)
    left.find(workers, course)
    assert course.limit is None


# ------------------------------------------------------------------------------------ the better config


def test_the_better_config_holds_what_differs(yaml: Path, here: Path) -> None:
    """It inherits the rest, and loads as the old one with these keys changed."""
    out = here / "better" / "tiny.yaml"
    keys = {"train.precision": "bf16", "train.micro_batch_size": 8}
    apply.write(yaml, keys, out, overrides=("learning_rate=1e-4",))
    assert out.read_text() == (
        "base: ../tiny.yaml\ntrain:\n  micro_batch_size: 8\n  learning_rate: 0.0001\n  precision: bf16\n"
    )
    assert load(out) == change(load(yaml, ("learning_rate=1e-4",)), keys)


def test_nothing_is_overwritten(yaml: Path) -> None:
    """Least of all the config that was diagnosed."""
    before = yaml.read_text()
    with pytest.raises(ConfigError, match="is there already"):
        apply.write(yaml, {"train.precision": "bf16"}, yaml)
    assert yaml.read_text() == before


def test_one_config_of_several_in_a_file_is_written_whole(data: Path, here: Path) -> None:
    """Such a file is no other's base."""
    one = tiny_corpus.config(data, here / "one.yaml").read_text()
    several = here / "several.yaml"
    several.write_text("".join(f"{name}:\n" + "".join(f"  {line}\n" for line in one.splitlines()) for name in "ab"))
    out = here / "better.yaml"
    apply.write(several, {"train.precision": "bf16"}, out, section="b")
    wanted = change(load(several, section="b"), {"train.precision": "bf16", "name": "better"})
    assert load(out) == wanted
