"""Models that are made once for all tests here."""

from pathlib import Path

import pytest
from made import saved


@pytest.fixture(scope="session")
def directories(tmp_path_factory) -> dict[str, Path]:
    """Family → a directory with a small model and its tokenizer."""
    root = tmp_path_factory.mktemp("theirs")
    return {family: saved(family, root / family) for family in ("t5", "bart", "gpt2", "llama", "qwen3")}
