"""What a user points at by RUN: a run's name or directory, one of its checkpoints, an exported directory, a file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ganeum.errors import CheckpointError, RunError
from ganeum.record import RunDirectory, find

NAME = re.compile("step-[0-9]+")
TOKENIZER_FILES = ("ganeum.json", "tokenizer.json")


@dataclass(frozen=True)
class Place:
    """Where weights and what belongs to them lie.

    Attributes:
        name: what to call it: the run's name, or that of the directory or file.
        weights: for `sources.read`: a checkpoint's directory, an exported directory, or a file.
        run: the run it belongs to, where it does.
    """

    name: str
    weights: Path
    run: RunDirectory | None = None

    @property
    def tokenizer_dir(self) -> Path | None:
        """The directory of its tokenizer, where there is one."""
        directory = self.run.tokenizer_dir if self.run else self.weights
        return directory if any((directory / name).is_file() for name in TOKENIZER_FILES) else None

    @property
    def step(self) -> int | None:
        """Updates completed, where the name says so."""
        number = self.weights.name.removeprefix("step-")
        return int(number) if self.run and number.isdecimal() else None


def locate(path: str | Path, which: str = "best") -> Place:
    """The place that `path` names.

    Args:
        which: for a run: `best` (`latest` where none was best), `latest`, a step, or a checkpoint's directory.
    Raises:
        CheckpointError: the run has no such checkpoint, or the directory holds no weights.
        RunError: there is no such run, and nothing at that path.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return Place(place.stem, place)
    if (place / "config.json").is_file():
        return Place(place.resolve().name, place)
    if (place / "model.safetensors").is_file():
        run = RunDirectory(place.resolve().parent.parent)
        return Place(run.name, place, run) if run.exists() else Place(place.resolve().name, place)
    if (place / "ckpt.pt").is_file():
        return Place(place.resolve().name, place / "ckpt.pt")
    try:
        run = find(path)
    except RunError:
        if not place.is_dir():
            raise
        raise CheckpointError(
            "there are no weights in this directory",
            where=str(place),
            why="it has no config.yaml (a run), model.safetensors, config.json (Hugging Face) or ckpt.pt (nanoGPT)",
        ) from None
    return Place(run.name, _checkpoint(run, which), run)


def _checkpoint(run: RunDirectory, which: str) -> Path:
    there = sorted(path for path in run.checkpoints_dir.glob("step-*") if NAME.fullmatch(path.name) and path.is_dir())
    if not there:
        raise CheckpointError(
            f"the run {run.name} has no checkpoint yet", where=str(run.checkpoints_dir), suggestion="train it first"
        )
    if (Path(which) / "model.safetensors").is_file():
        return Path(which)
    number = which.removeprefix("step-")
    if number.isdecimal() and (wanted := run.checkpoint_dir(int(number))) in there:
        return wanted
    if which not in ("best", "latest"):
        steps = ", ".join(str(int(path.name.removeprefix("step-"))) for path in there)
        raise CheckpointError(
            f"the run {run.name} has no checkpoint {which}",
            where=str(run.checkpoints_dir),
            suggestion=f"best, latest, or one of the steps {steps}",
        )
    for pointer in (run.checkpoints_dir / which, run.checkpoints_dir / "latest"):
        if pointer.is_file() and (wanted := run.checkpoints_dir / pointer.read_text(errors="replace").strip()) in there:
            return wanted
    return there[-1]
