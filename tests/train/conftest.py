"""Every test trains in its own results directory, on a corpus written once, and leaves torch as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_corpus
import torch


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_corpus.write(tmp_path_factory.mktemp("data") / "words")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture
def yaml(here: Path, data: Path) -> Path:
    """A config of 20 steps on it, called tiny."""
    return tiny_corpus.config(data, here / "tiny.yaml")
