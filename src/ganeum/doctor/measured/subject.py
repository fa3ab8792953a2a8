"""What is diagnosed, in a form that another process can take: a config of ours, or a function by its file."""

from __future__ import annotations

import inspect
import os
import signal
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ganeum.config import Config
from ganeum.config.change import change
from ganeum.doctor.measured.remedy import Remedy
from ganeum.doctor.measured.training import Named, Subject
from ganeum.errors import ConfigError
from ganeum.plan.trace.script import split

WHERE = getattr(signal, "SIGUSR2", None)  # asks a worker where it is, told in the text that it prints
LIBRARIES = (
    *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platlib", "purelib")),
    str(Path(__file__).parents[2]) + os.sep,
    "<",
)
FORM = """\
def build():
    def step(batch): …
    return ganeum.doctor.Training(model, batches, step, optimizer)"""


def settled(subject: Subject) -> Config | Named:
    """The subject, found.

    Raises:
        ConfigError: there is no such file, or the function is not one that another process could find by its name.
    """
    if isinstance(subject, Config):
        return subject
    if isinstance(subject, str):
        file, function = split(subject)
        return Named(file.resolve(), function)
    name: str = getattr(subject, "__qualname__", repr(subject))
    source = inspect.getsourcefile(subject) if inspect.isfunction(subject) else None
    if source is None or not name.isidentifier() or not Path(source).is_file():
        raise ConfigError(
            f"{name} cannot be found by its name in a file",
            why="each variant of a training is built in a process of its own, which imports the function",
            suggestion="a function at the top of a file that takes no arguments:\n" + FORM,
        )
    return Named(Path(source).resolve(), name)


def is_own(file: str) -> bool:
    """Whether a line of this file is the user's, and not of a library."""
    return not file.startswith(LIBRARIES)


def needs_transformers(subject: Config | Named) -> bool:
    """Whether it is likely to load that library."""
    if isinstance(subject, Config):
        return subject.model.source is not None
    return "transformers" in subject.file.read_text(encoding="utf-8", errors="replace")


def request(subject: Config | Named, remedies: Sequence[Remedy]) -> Mapping[str, Any]:
    """What a worker is told to build: the config with the remedies' keys, or the function; then what is done to it.

    Raises:
        ConfigError: the keys together are no config.
    """
    acts = [remedy.act for remedy in remedies if remedy.act is not None]
    if isinstance(subject, Named):
        return {"file": str(subject.file), "function": subject.function, "acts": acts}
    keys = {key: value for remedy in remedies for key, value in remedy.keys.items()}
    return {"config": change(subject, keys) if keys else subject, "acts": acts}
