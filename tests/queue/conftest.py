"""A list in a directory of its own; whatever is left of its runs is ended with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeum.queue import process
from ganeum.queue.process import Identity
from ganeum.queue.settle import identity
from ganeum.queue.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path / "results"))
    with Store.default() as opened:
        yield opened
        for entry in opened.all():
            if entry.token and (first := identity(entry)) and first != Identity.of_this_process():
                process.kill(first, entry.token)
