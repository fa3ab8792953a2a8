"""Whether code that came with a model may be run: only where the command line said so, and never a config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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
