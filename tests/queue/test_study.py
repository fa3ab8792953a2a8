"""Sweeps that go on by themselves: hopeless trials are ended, and Optuna goes on from what the others came to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ganeum.errors import GaneumError
from ganeum.queue import control, study
from ganeum.queue.entry import Entry
from ganeum.queue.freeze import frozen_config
from ganeum.queue.store import Store
from ganeum.queue.sweep import axes
from ganeum.record import MetricsLog


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path / "results"))
    Path("one.yaml").write_text("train: {max_iters: 100}\n")


@pytest.fixture
def store() -> object:
    with Store.default() as store:
        yield store


def begun(store: Store, *sweep: str, **settings: object) -> list[Entry]:
    spec = study.Spec.of(axes(sweep), **settings)
    return study.begin(store, "one.yaml", ["n_layer=2"], None, None, spec, Entry(name="", group="g"))


def evaluated(store: Store, entry: Entry, losses: Sequence[float], state: str) -> None:
    """As if the trial had been evaluated every 10 steps, and were so now."""
    with MetricsLog(store.run(entry).metrics_path) as log:
        for number, loss in enumerate(losses, start=1):
            log.write({"step": 10 * number, "loss": 1.0, "val_loss": loss})
    store.update(entry.id, state=state, attempts=1)


def test_a_hopeless_trial_is_asked_to_end_and_the_others_go_on(store: Store) -> None:
    """Of five that run, the one above the others' median at its second evaluation; once, with its reason."""
    trials = begun(store, "seed=1,2,3,4,5", stop_hopeless=True)
    for trial, losses in zip(trials, ([3.0, 2.0], [3.0, 2.2], [3.0, 2.4], [3.0, 3.0], [3.1, 3.1]), strict=True):
        evaluated(store, trial, losses, "running")
    said: list[str] = []
    study.tend(store, said.append)
    study.tend(store, said.append)
    assert ["", "", "", "kill", "kill"] == [store.get(trial.id).wanted for trial in trials]
    why = "hopeless: val loss 3.1000 at step 20, and 2.3000 in the middle of 4 others"
    assert why == store.get(5).note
    assert said[1:] == [f"5 (one-seed-5) is ended early, {why}"]


def test_a_hopeless_trial_that_is_taken_back_is_not_judged_again(store: Store) -> None:
    """`retry` means it: it goes on although the others are still better, and the others are still judged."""
    trials = begun(store, "seed=1,2,3,4,5", stop_hopeless=True)
    for trial in trials[:4]:
        evaluated(store, trial, [3.0, 2.0], "running")
    evaluated(store, trials[4], [3.1, 3.1], "running")
    study.tend(store, lambda text: None)
    assert "kill" == store.get(5).wanted
    store.update(5, state="killed")
    control.retry(store, store.get(5))
    evaluated(store, store.get(5), [3.1, 3.1, 3.1], "running")
    evaluated(store, store.get(1), [9.0, 9.0, 9.0], "running")
    for id in (2, 3, 4):
        evaluated(store, store.get(id), [3.0, 2.0, 2.0], "running")
    study.tend(store, lambda text: None)
    assert ["kill", "", "", "", ""] == [store.get(trial.id).wanted for trial in trials]


def test_without_the_wish_nothing_is_ended(store: Store) -> None:
    """A plain sweep carries no rule of its own."""
    assert [None, None] == [trial.spec for trial in begun(store, "seed=1,2")]


def test_optuna_goes_on_with_what_it_has_learnt(store: Store) -> None:
    """Two at a time until there were six; each is a run of its own name, frozen with its trial's values; what was
    tried is read from the entries alone, so that another process goes on with the sweep."""
    pytest.importorskip("optuna")
    trials = begun(store, "learning_rate=1e-5..1e-1:log", sampler="optuna", trials=6, at_once=2)
    assert ["one-1", "one-2"] == [trial.name for trial in trials]
    said: list[str] = []
    study.tend(store, said.append)
    assert [] == said  # two are under way
    for _ in range(4):
        [first, *_] = [entry for entry in store.all() if entry.state == "queued"]
        evaluated(store, first, [3.0, 2.0 + float((first.trial or {})["train.learning_rate"])], "finished")
        study.tend(store, said.append)
    assert said == [f"{id} (one-{id}) is the next trial of one" for id in (3, 4, 5, 6)]
    for entry in store.all():
        config = frozen_config(store.run(entry))
        assert float((entry.trial or {})["train.learning_rate"]) == config.train.learning_rate
        assert ("g", 2, "one") == (entry.group, config.model.n_layer, entry.sweep)
        assert 1e-5 <= config.train.learning_rate <= 1e-1
    for entry in store.all():
        store.update(entry.id, state="finished")
    study.tend(store, said.append)
    assert 6 == len(store.all())


def test_optuna_leaves_out_where_the_loss_is_high(store: Store) -> None:
    """With a loss that is the distance from 1e-3 in powers of ten, late trials lie nearer to it than the first ones."""
    pytest.importorskip("optuna")
    from math import log10

    begun(store, "learning_rate=1e-6..1e-0:log", sampler="optuna", trials=30, seed=1)
    distances = []
    for _ in range(30):
        [trial] = [entry for entry in store.all() if entry.state == "queued"]
        distances.append(abs(log10(float((trial.trial or {})["train.learning_rate"])) + 3))
        evaluated(store, trial, [distances[-1]], "finished")
        study.tend(store, lambda text: None)
    assert sum(distances[-10:]) < sum(distances[:10])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"sampler": "grid"},
            "ConfigError: there is no sampler grid\n  where  --sampler\n  try    random or optuna",
        ),
    ],
)
def test_what_cannot_be_a_sweep_is_told(settings: dict[str, str], text: str) -> None:
    """Before anything is queued."""
    with pytest.raises(GaneumError) as error:
        study.Spec.of(axes(["seed=1,2"]), **settings)
    assert text == str(error.value)


def test_a_missing_optuna_is_told_by_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is asked for, not at the first trial at night."""
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(GaneumError) as error:
        study.Spec.of(axes(["seed=1,2"]), sampler="optuna", trials=3)
    assert str(error.value) == (
        "MissingExtra: trials by Optuna need the package optuna\n"
        "  where  --sampler optuna\n"
        "  try    pip install 'ganeum[optuna]'"
    )


def test_a_spec_reads_back_from_json() -> None:
    """What an entry keeps of its sweep is the sweep again."""
    import json

    spec = study.Spec.of(axes(["seed=1,2", "learning_rate=1e-5..1e-2:log"]), trials=3, stop_hopeless=True)
    assert spec == study.Spec.read(json.loads(json.dumps(spec.plain())))
