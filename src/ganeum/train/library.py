"""ganeum as a library: `train(…)` and what came of it, and `load_run(…)`, everything that a run left, from its files.

Nothing here loads torch before a training or a model is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, TextIO

from ganeum.config import Config, load_stored
from ganeum.config.given import UNNAMED, Given, taken
from ganeum.errors import CheckpointError, ConfigError
from ganeum.record import RunDirectory, find, read_json, read_metrics
from ganeum.train.callbacks import Callback

if TYPE_CHECKING:
    from ganeum.data.examples.tokenizer import ExampleTokenizer
    from ganeum.data.tokenizer import Tokenizer
    from ganeum.models.gpt import GPT
    from ganeum.models.network import Network


class Run:
    """A run that exists, read from its files when they are asked for; also while it is trained.

    Attributes:
        name, path: of its directory.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self.name, self.path = directory.name, directory.path

    def __repr__(self) -> str:
        return f"Run({self.name!r}, {self.state})"

    @property
    def state(self) -> str:
        """queued, running, finished, failed, interrupted, died or new (see `ganeum runs`)."""
        from ganeum.record.overview import state_of

        return state_of(self._directory)

    @property
    def config(self) -> Config:
        """Every key, resolved."""
        return load_stored(self._directory.config_path)

    @property
    def metrics(self) -> Metrics:
        """What was logged, one entry a logged step."""
        return Metrics(read_metrics(self._directory.metrics_path))

    @property
    def system(self) -> Metrics:
        """What the GPU did meanwhile; empty where none was watched."""
        return Metrics(read_metrics(self._directory.system_path))

    @property
    def plan(self) -> dict[str, Any] | None:
        """plan.json; None before it is written."""
        return _json(self._directory.plan_path)

    @property
    def summary(self) -> dict[str, Any] | None:
        """summary.json; None before the run has ended."""
        return _json(self._directory.summary_path)

    @property
    def samples(self) -> dict[int, str]:
        """Step → the text that was written there, with its prompt and settings."""
        files = sorted(self._directory.samples_dir.glob("step-*.txt"))
        return {int(file.stem.removeprefix("step-")): file.read_text(encoding="utf-8") for file in files}

    def model(self, checkpoint: str | int = "best", *, device: str = "auto") -> Network:
        """The model, ready to read: in fp32, no dropout. It is a `torch.nn.Module`: a GPT of ours takes (B, T) tokens
        and gives logits; of a model that the run adopted, `.model` is transformers' own.

        Args:
            checkpoint: best (the latest where none was best), latest, or a step.
            device: auto, cpu, cuda, cuda:1 or mps.
        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        from ganeum import hardware
        from ganeum.models.place import locate
        from ganeum.models.weights import restore

        return restore(locate(self.path, str(checkpoint)).weights).to(hardware.detect(device).torch_name)

    def tokenizer(self) -> Tokenizer | ExampleTokenizer:
        """What turns this run's text into tokens and back, with `encode` and `decode`.

        Raises:
            CheckpointError: the data had none.
        """
        from ganeum.data.tokenizer import load_tokenizer

        if not self._directory.tokenizer_dir.is_dir():
            raise CheckpointError(
                f"the run {self.name} has no tokenizer, so nothing can be read or written with it",
                where=str(self._directory.tokenizer_dir),
                why="its data came as tokens, without one",
            )
        if self.config.model.source is not None:
            from ganeum.data.examples.tokenizer import open_tokenizer

            return open_tokenizer(str(self._directory.tokenizer_dir), key="tokenizer")
        return load_tokenizer(self._directory.tokenizer_dir)

    def generate(self, prompt: str = "", *, seed: int = 1337, **settings: Any) -> list[str]:
        """Texts that the best checkpoint writes, each with its prompt; the same seed writes the same texts. For a model
        that the run adopted there is `ganeum generate`.

        Args:
            prompt: what a text starts with; empty: the start of a document.
            settings: num_samples, max_new_tokens, temperature, top_k, top_p; otherwise the run's own `sample:` keys.
        Raises:
            ConfigError, Several: a setting that the key of its name in a config could not have, or that is none.
            CheckpointError: the model is no GPT of ours.
        """
        checked = taken({"train": {"max_iters": 1}, "sample": settings})  # no config is without a length
        given = checked.sample.model_dump(include=set(settings))
        import torch

        from ganeum.models.generate import generate

        model, tokenizer = self._writer
        end = tokenizer.end_of_text
        names = ("num_samples", "max_new_tokens", "temperature", "top_k", "top_p")
        own = self.config.sample.model_dump(include=set(names))
        texts = generate(
            model,
            # An empty prompt is the end-of-text token, after which a document begins; without one, the first there is.
            tokenizer.encode(prompt) or [end if end is not None else 0],
            generator=torch.Generator().manual_seed(seed),
            end_of_text=end,
            **{**own, **given},
        )
        return [prompt + tokenizer.decode(text) for text in texts]

    @cached_property
    def _writer(self) -> tuple[GPT, Any]:
        from ganeum import hardware
        from ganeum.models.place import locate
        from ganeum.models.weights import restore_gpt

        return restore_gpt(locate(self.path).weights).to(hardware.detect("auto").torch_name), self.tokenizer()


class Metrics(list[dict[str, Any]]):
    """Logged lines, a list of dictionaries (what pandas.DataFrame and polars.DataFrame take as it is)."""

    def column(self, name: str) -> list[Any]:
        """One figure over all lines, None where a line does not have it; with `column("step")` what a plot needs."""
        return [line.get(name) for line in self]


@dataclass(frozen=True)
class Result:
    """What came of a training: `summary` as in summary.json, and the `run`."""

    summary: dict[str, Any]
    run: Run


def train(
    config: Given,
    *overrides: str,
    section: str | None = None,
    callbacks: Sequence[Callback] = (),
    overwrite: bool = False,
    force: bool = False,
    stream: TextIO | None = None,
) -> Result:
    """Trains a run, goes on with one that was interrupted, or extends it, as `ganeum train` does.

    Args:
        config: a YAML file, the same as a dictionary (with a `name`), or a config that was loaded.
        overrides: keys as on the command line: `"max_iters=100"`.
        section: the one config to take of a file that holds several.
        callbacks: the user's own (`ganeum.Callback`).
        overwrite: throw an existing run of that name away first.
        force: start it although the plan says that it cannot fit into memory.
        stream: where progress is shown, and what Hugging Face's names came to; default standard output.

    Raises:
        GaneumError: anything the user can act on; nothing half-written is left.
        Interrupted: by Ctrl-C (in a notebook, its stop button) or SIGTERM, after a checkpoint.
    """
    wanted = taken(config, overrides, section=section, say=lambda text: print(text + "\n", file=stream or sys.stdout))
    if wanted.name in (None, UNNAMED) and not isinstance(config, (str, PathLike)):
        raise ConfigError(
            "a run needs a name, and no file is there to give it one",
            where="the config given as a dictionary" if isinstance(config, Mapping) else "name",
            suggestion='"name": "my_run"',
        )
    _check_callbacks(callbacks)
    from ganeum.train import run

    summary = run.train(wanted, overwrite=overwrite, force=force, stream=stream, callbacks=callbacks)
    return Result(summary, Run(_directory(wanted)))


def load_run(name: str | PathLike[str]) -> Run:
    """The run called so under results/ (or $GANEUM_RESULTS), or at that path.

    Raises:
        RunError: there is none; the nearest name is suggested.
    """
    return Run(find(name))


def _check_callbacks(callbacks: object) -> None:
    """Before there is a run: each is an object of a class made from `Callback`, and they are in a list."""
    wrong = callbacks
    if isinstance(callbacks, Sequence):
        others = [callback for callback in callbacks if not isinstance(callback, Callback)]
        if not others:
            return
        wrong = others[0]
    name = wrong.__name__ if isinstance(wrong, type) else type(wrong).__name__
    raise ConfigError(
        f"callbacks is a list of objects of classes made from ganeum.Callback, but here is {wrong!r}",
        where="callbacks",
        suggestion=f"callbacks=[{name if isinstance(wrong, (type, Callback)) else 'MyCallback'}()]",
    )


def _directory(config: Config) -> RunDirectory:
    from ganeum.record import results_dir

    return RunDirectory(results_dir() / str(config.name))


def _json(path: Any) -> dict[str, Any] | None:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
