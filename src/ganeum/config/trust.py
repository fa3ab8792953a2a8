"""Whether code that came with a model may be run: only where the command line said so, and never a config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ganeum.errors import CheckpointError

_trusted = ContextVar("trust_remote_code", default=False)


def trusted() -> bool:
    """What transformers is given as ``trust_remote_code``."""
    return _trusted.get()


@contextmanager
def trusting(code: bool = True) -> Iterator[None]:
    """Around a command whose reader said ``--trust-remote-code``."""
    token = _trusted.set(code)
    try:
        yield
    finally:
        _trusted.reset(token)


def not_run(what: str, where: str) -> CheckpointError:
    """What is raised where transformers asks for leave to run code: its own advice names an option that no config has.

    Args:
        what: as a reader calls it, ``the model NAME``, say.
    """
    return CheckpointError(
        f"{what} comes with code of its own, which is not run",
        where=where,
        why="whoever wrote it could do on this machine what you can",
        suggestion="read it, then --trust-remote-code",
    )
