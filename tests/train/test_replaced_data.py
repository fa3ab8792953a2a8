"""A run goes on with the tokens that it began with, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_corpus
from tiny_corpus import go

from ganeum.errors import RunError


@pytest.fixture(params=[True, False], ids=["prepared", "nanoGPT"])
def own(here: Path, request: pytest.FixtureRequest) -> Path:
    """Data of this test alone, with meta.json and without."""
    directory = tiny_corpus.write(here / "own")
    if not request.param:
        (directory / "meta.json").unlink()
    return directory


def other_text(directory: Path) -> None:
    """As many tokens, in another order."""
    tokens = np.fromfile(directory / "train.bin", "<u2")[::-1]
    tokens.tofile(directory / "train.bin")
    if (path := directory / "meta.json").exists():
        meta = json.loads(path.read_text())
        meta["train"]["sha256"] = "0" * 64
        path.write_text(json.dumps(meta))


def test_a_run_does_not_go_on_with_other_data(own: Path) -> None:
    """Replaced under the same path with as many tokens: refused, and the run stays as it was."""
    yaml = tiny_corpus.config(own, own.parent / "tiny.yaml")
    go(yaml, "max_iters=4")
    other_text(own)
    stored = Path("results/tiny/config.yaml").read_bytes()
    with pytest.raises(RunError) as error:
        go(yaml, "max_iters=8")
    assert str(error.value) == (
        "RunError: the data of tiny was replaced since it began\n"
        f"  where  {own}\n"
        f"  why    the run began with other tokens than {own} holds now\n"
        "  try    put the data back as it was, or name=tiny-2 for a new run"
    )
    assert Path("results/tiny/config.yaml").read_bytes() == stored


def test_a_run_goes_on_with_the_same_data(own: Path) -> None:
    """Prepared or nanoGPT's; and a run whose plan does not say which it was is believed."""
    yaml = tiny_corpus.config(own, own.parent / "tiny.yaml")
    go(yaml, "max_iters=4")
    assert go(yaml, "max_iters=6")[0]["steps"] == 6
    path = Path("results/tiny/plan.json")
    plan = json.loads(path.read_text())
    assert plan["data"].pop("identity").keys() == {"train", "val"}
    path.write_text(json.dumps(plan))
    assert go(yaml, "max_iters=8")[0]["steps"] == 8


def test_a_vocabulary_that_outgrew_the_model_is_refused(here: Path) -> None:
    """Where the plan does not say which data it was: bytes before, GPT-2's vocabulary now."""
    own = tiny_corpus.write(here / "own")
    yaml = tiny_corpus.config(own, here / "tiny.yaml")
    go(yaml, "max_iters=4")
    Path("results/tiny/plan.json").unlink()
    (own / "meta.json").unlink()
    with pytest.raises(RunError) as error:
        go(yaml, "max_iters=8")
    assert str(error.value) == (
        "RunError: the data of tiny was replaced since it began\n"
        f"  where  {own}\n"
        "  why    its model knows 257 tokens, and the data has 50,257 now\n"
        "  try    put the data back as it was, or name=tiny-2 for a new run"
    )
