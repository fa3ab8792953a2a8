"""Somebody's own training step: the function of a file that gives it, for ``ganeum plan --script FILE:FUNCTION``."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from itertools import chain, count
from pathlib import Path
from typing import Any

from ganeum.errors import ConfigError, TraceError

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
        ConfigError: the file has no such function; from ``build``: it gives something else.
        TraceError: the file fails; from ``build``: the function does. With the line.
    """
    found = imported(file, function, FORM)
    pair: list[Callable[[Any], Any]] = []

    def build() -> Any:
        with _located(file, f"{function}() failed"):
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
        TraceError: the file fails; with its line.
    """
    sys.path.insert(0, str(file.resolve().parent))
    name = file.stem if file.stem not in sys.modules else f"{file.stem} (script)"  # a random.py replaces no module
    loader = SourceFileLoader(name, str(file.resolve()))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None, "made of a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _located(file, "it cannot be imported"):
        loader.exec_module(module)
    found: Callable[[], Any] | None = getattr(module, function, None)
    if not callable(found):
        has = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise ConfigError(
            f"there is no function {function} in it",
            where=str(file),
            suggestion=" or ".join(f"{file}:{name}" for name in has[:6]) or form,
        )
    return found


@contextmanager
def _located(file: Path, what: str) -> Iterator[None]:
    """An error inside is told with the innermost line of the file."""
    try:
        yield
    except SyntaxError as error:
        raise TraceError(f"{what}: SyntaxError: {error.msg}", where=f"{error.filename}, line {error.lineno}") from error
    except Exception as error:
        own = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file.resolve())]
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise TraceError(
            f"{what}: {type(error).__name__}: {first}",
            where=f"{file}, line {own[-1].lineno}: {own[-1].line}" if own else str(file),
        ) from error
