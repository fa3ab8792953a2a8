"""Somebody's own training step: the function of a file that gives it, for ``ganeum plan --script FILE:FUNCTION``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path
from typing import Any

from ganeum.errors import ConfigError

FORM = """\
def training():
    def build(): return model, optimizer
    def step(built): …
    return build, step"""


def split(text: str) -> tuple[Path, str]:
    """``train_mine.py:training`` → the file, which is there, and the name.

    Raises:
        ConfigError: there is no such file, or no function is named.
    """
    file, colon, function = text.rpartition(":")
    if not colon or not file or not function.isidentifier():
        raise ConfigError(
            f"--script names no function: {text}",
            where="the command line",
            suggestion=f"--script {file or text.strip(':') or 'FILE.py'}:FUNCTION",
        )
    if not Path(file).is_file():
        raise ConfigError(f"there is no file {file}", where=f"the command line: --script {text}")
    return Path(file), function


def load(file: Path, function: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """What the function gives: ``build`` and ``step``; or both of a training that it builds itself
    (``ganeum.doctor.Training``), which happens where ``build`` is called.

    Raises:
        ConfigError: the file has no such function, or it gives something else.
    """
    found = imported(file, function, FORM)
    pair: list[Callable[[Any], Any]] = []

    def build() -> Any:
        given = found()
        if isinstance(given, tuple) and len(given) == 2 and all(callable(one) for one in given):
            pair.append(given[1])
            return given[0]()
        if callable(getattr(given, "step", None)) and hasattr(given, "batches"):
            batches = chain.from_iterable(given.batches for _ in count())
            pair.append(lambda training: training.step(next(batches)))
            return given
        raise ConfigError(
            f"{function}() gives {type(given).__name__}, where a pair of functions is expected, build and step",
            where=str(file),
            suggestion=FORM,
        )

    return build, lambda built: pair[-1](built)


def imported(file: Path, function: str, form: str) -> Callable[[], Any]:
    """The function. Runs the file, as ``import`` would, from its own directory; ``form``: what such a one looks like.

    Raises:
        ConfigError: the file has no such function.
    """
    sys.path.insert(0, str(file.resolve().parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None, "a file that is there"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    found: Callable[[], Any] | None = getattr(module, function, None)
    if not callable(found):
        has = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise ConfigError(
            f"there is no function {function} in it",
            where=str(file),
            suggestion=" or ".join(f"{file}:{name}" for name in has[:6]) or form,
        )
    return found
