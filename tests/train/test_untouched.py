"""What evaluating and overwriting must leave as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_corpus import go

from ganeum.config import load
from ganeum.errors import RunError
from ganeum.train import run as running
from ganeum.train.material import Text


def test_an_evaluation_that_fails_leaves_the_status_of_the_training(
    yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run stays finished."""
    go(yaml)
    status = Path("results/tiny/status.json").read_bytes()

    def failing(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Text, "validation", failing)
    with pytest.raises(KeyboardInterrupt):
        go(yaml, "eval_only=true")
    assert Path("results/tiny/status.json").read_bytes() == status


@pytest.mark.parametrize("source", ["tiny", "results/tiny/checkpoints/step-00000020"])
def test_overwriting_the_run_that_is_started_from_is_refused(yaml: Path, source: str) -> None:
    """By its name or by a path inside it; the checkpoint stays."""
    go(yaml)
    with pytest.raises(RunError) as error:
        running.train(load(yaml, [f"train.init_from={source}"]), overwrite=True)
    assert str(error.value) == (
        f"RunError: --overwrite would throw away tiny, and train.init_from={source} is to be read from it\n"
        f"  where  {Path('results/tiny').resolve()}\n"
        "  try    another name for the new run: name=…"
    )
    assert Path("results/tiny/checkpoints/step-00000020").is_dir()
