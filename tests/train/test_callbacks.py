"""Callbacks: every moment is told, one can end the training, and one that fails leaves the run usable."""

from __future__ import annotations

import doctest
import json
import os
import re
import signal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import tiny_corpus
from tiny_corpus import go, metrics

from ganeum import Callback, StopTraining, train
from ganeum.errors import RunError
from ganeum.train import callbacks, checkpoint
from ganeum.train.callbacks import Training
from ganeum.train.interrupt import Interrupted


class Listener(Callback):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def on_start(self, training: Training) -> None:
        self.training = training
        self.heard.append(("start", training.step))

    def on_step(self, step: int) -> None:
        self.heard.append(("step", step))

    def on_log(self, step: int, metrics: Any) -> None:
        self.metrics = dict(metrics)
        self.heard.append(("log", step))

    def on_evaluation(self, step: int, metrics: Any) -> None:
        self.scores = dict(metrics)
        self.heard.append(("evaluation", step))

    def on_checkpoint(self, step: int, path: Path) -> None:
        assert path.name == f"step-{step:08d}"
        self.heard.append(("checkpoint", step))

    def on_sample(self, step: int, path: Path) -> None:
        assert "--- 1 ---" in path.read_text()
        self.heard.append(("sample", step))

    def on_end(self, summary: dict[str, Any] | None) -> None:
        self.heard.append(("end", summary and summary["steps"]))
        if summary is not None:
            summary["heard"] = len(self.heard)


def test_every_moment_in_its_order(yaml: Path) -> None:
    """Ten steps, logged at 1 and every 2, evaluated at 5 and 10, sampled at 10, kept at 4, 8 and where it was best."""
    listener = Listener()
    result = train(yaml, "max_iters=10", callbacks=[listener], stream=StringIO())
    steps: list[tuple[str, Any]] = []
    for n in range(1, 11):
        steps.append(("step", n))
        steps += [("evaluation", n)] if n % 5 == 0 else []
        steps += [("log", n)] if n in (1, 2, 4, 5, 6, 8, 10) else []
        steps += [("sample", n)] if n == 10 else []
        steps += [("checkpoint", n)] if n in (4, 5, 8, 10) else []
    assert [("start", 0), *steps, ("end", 10)] == listener.heard
    last = metrics("tiny")[-1]
    assert listener.metrics == {key: value for key, value in last.items() if value is not None and key != "step"}
    assert listener.scores == {"val_loss": last["val_loss"], "val_bpb": last["val_bpb"]}
    assert (listener.training.max_iters, listener.training.run.name) == (10, "tiny")
    assert sum(p.numel() for p in listener.training.model.parameters()) > 10_000
    # What it put into the summary is in the file, too.
    assert (
        len(listener.heard)
        == result.summary["heard"]
        == json.loads(Path("results/tiny/summary.json").read_text())["heard"]
    )


class StopAt(Callback):
    def __init__(self, moment: str, step: int) -> None:
        self.step = step
        setattr(self, moment, self._stop)

    def _stop(self, step: int, *_: object) -> None:
        if step >= self.step:
            raise StopTraining("that is enough")


@pytest.mark.parametrize("moment", ["on_step", "on_log", "on_evaluation", "on_checkpoint", "on_sample"])
def test_a_callback_can_end_the_training(yaml: Path, moment: str) -> None:
    """After the step that it is in, with a checkpoint of it; a larger length goes on from there."""
    stream = StringIO()
    ended = train(yaml, callbacks=[StopAt(moment, 5)], stream=stream).summary
    at = {"on_step": 5, "on_log": 5, "on_evaluation": 5, "on_checkpoint": 5, "on_sample": 10}[moment]
    assert ("callback", at) == (ended["ended_by"], ended["steps"])
    assert f"Stopped at step {at} by StopAt: that is enough\n" in stream.getvalue()
    assert (Path("results/tiny/checkpoints") / f"step-{at:08d}").is_dir()
    assert go(yaml)[1].startswith(f"tiny is finished: {at} steps")
    assert go(yaml, "max_iters=21")[0]["steps"] == 21


def test_before_the_first_step(yaml: Path) -> None:
    """Nothing is trained, nothing is kept."""

    class Never(Callback):
        def on_start(self, training: Training) -> None:
            raise StopTraining

    ended = train(yaml, callbacks=[Never()], stream=StringIO()).summary
    assert ("callback", 0, None) == (ended["ended_by"], ended["steps"], ended["loss"])
    assert not list(Path("results/tiny/checkpoints").glob("step-*"))


class Broken(Callback):
    def __init__(self, moment: str) -> None:
        setattr(self, moment, self._fails)

    def _fails(self, *arguments: object) -> None:
        if arguments[0] is not None and (not isinstance(arguments[0], int) or arguments[0] >= 7):
            raise KeyError("mood")


LINE = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if 'raise KeyError("mood")' in text)


@pytest.mark.parametrize("moment", ["on_start", "on_step", "on_log", "on_evaluation", "on_checkpoint", "on_end"])
def test_one_that_fails_is_named_and_the_run_goes_on_without_it(yaml: Path, data: Path, moment: str) -> None:
    """Its step is finished and kept; the same command without it ends as a run that never had it."""
    with pytest.raises(RunError) as error:
        train(yaml, callbacks=[Broken(moment)], stream=StringIO())
    assert str(error.value) == (
        f"RunError: the callback Broken failed in {moment}: KeyError: 'mood'\n"
        f"  where  {__file__}, line {LINE}\n"
        "  try    mend it and give the same command again: it goes on from the newest checkpoint"
    )
    kept = {"on_start": 0, "on_step": 7, "on_log": 8, "on_evaluation": 10, "on_checkpoint": 8, "on_end": 20}[moment]
    status = json.loads(Path("results/tiny/status.json").read_text())
    assert ("failed", kept) == (status["state"], status["step"])
    summary, _ = go(yaml)
    alone, _ = go(tiny_corpus.config(data, Path("alone.yaml")))
    assert (summary["val_loss"], summary["train_loss"]) == (alone["val_loss"], pytest.approx(alone["train_loss"]))
    assert [line["loss"] for line in metrics("alone")] == [line["loss"] for line in metrics("tiny")]


def test_an_interrupted_run_ends_without_a_summary(yaml: Path) -> None:
    """Every callback hears of the end, also when one before it fails over it."""

    class Signals(Listener):
        def on_step(self, step: int) -> None:
            if step == 3:
                os.kill(os.getpid(), signal.SIGINT)

    first, second = Broken("on_end"), Signals()
    first.on_end = lambda summary: 1 / 0  # type: ignore[assignment, method-assign]
    with pytest.raises(Interrupted):
        train(yaml, callbacks=[first, second], stream=StringIO())
    assert ("end", None) == second.heard[-1]
    assert checkpoint.steps(callbacks.RunDirectory(Path("results/tiny")))[0] == 3


def test_the_example_in_the_docstring_runs(yaml: Path) -> None:
    """`Callback`'s own example is Python, and its class ends a training."""
    names: dict[str, Any] = {"Callback": Callback, "StopTraining": StopTraining}
    example = doctest.DocTestFinder().find(Callback, "Callback", globs=names)[0]
    assert doctest.DocTestRunner().run(example, clear_globs=False) == (0, 1)
    ended = train(yaml, callbacks=[example.globs["StopAt"](99.0)], stream=StringIO()).summary
    assert ("callback", 5) == (ended["ended_by"], ended["steps"])


def test_the_example_in_the_docs_runs(yaml: Path) -> None:
    """The Python of docs/training.md, as it stands, on a run that is long enough for it."""
    yaml.write_text(yaml.read_text().replace("max_iters: 20", "max_iters: 200"))
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    for block in re.findall("```python\n(.*?)```", page, re.DOTALL):
        exec(block, {})
    ended = json.loads(Path("results/tiny/summary.json").read_text())
    assert ("callback", True) == (ended["ended_by"], ended["val_loss"] <= 4.0)


def test_what_summary_json_cannot_hold_is_named(yaml: Path) -> None:
    """The text; nothing of the training is lost, and without it the same call ends the run."""

    class Curve(Callback):
        def on_end(self, summary: dict[str, Any] | None) -> None:
            if summary is not None:
                summary["curve"] = {1, 2}

    with pytest.raises(RunError) as error:
        train(yaml, callbacks=[Curve()], stream=StringIO())
    assert str(error.value) == (
        "RunError: the callback Curve put into the summary what summary.json cannot hold\n"
        "  where  on_end\n"
        "  why    Object of type set is not JSON serializable\n"
        "  try    numbers, text, lists and dictionaries; then the same command again"
    )
    summary, _ = go(yaml)
    assert summary["steps"] == 20
