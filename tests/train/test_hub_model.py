"""A model by its name on the hub: fetched once, read from what was kept, and given up quickly where nobody answers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import stand_in_hub
import tiny_pairs
from tiny_corpus import go, metrics

from ganeum.data.examples.model import learner
from ganeum.errors import DataError
from ganeum.hardware import hub

pytestmark = pytest.mark.slow


def trained(config: Path, endpoint: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    """`ganeum train` in a process of its own, whose hub is at that address."""
    words = [sys.executable, "-m", "ganeum", "train", str(config), *overrides]
    if not any(override.startswith("model.source=") for override in overrides):
        words.append("model.source=tiny/t5")
    home = config.parent / "home"
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    return subprocess.run(words, cwd=config.parent, env=environment, capture_output=True, text=True, timeout=300)


def test_a_run_from_the_hub(here: Path) -> None:
    """Config, tokenizer and weights come over the wire by transformers' real calls, each once; the
    losses are those of the same directory. With the hub gone the run still begins, from what was fetched before."""
    data = tiny_pairs.write(here / "data")
    config = tiny_pairs.config(data, here / "t5.yaml")
    with stand_in_hub.serving(data) as (endpoint, fetched):
        first = trained(config, endpoint, "name=first")
        assert (first.returncode, first.stderr) == (0, "")
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"} <= set(fetched)
    assert len(fetched) == len(set(fetched))
    second = trained(config, endpoint, "name=second")  # at the same address nobody is any more
    assert (second.returncode, second.stderr) == (0, "")
    go(config, "name=local")
    losses = [[line["loss"] for line in metrics(name)] for name in ("first", "second", "local")]
    assert losses[0] == losses[1] == losses[2]


def test_a_name_without_an_owner(here: Path) -> None:
    """As the hub's oldest models are called: planned and trained like any."""
    data = tiny_pairs.write(here / "data")
    config = tiny_pairs.config(data, here / "t5.yaml")
    with stand_in_hub.serving(data) as (endpoint, _):
        done = trained(config, endpoint, "model.source=t5", "name=first")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_name_that_the_hub_does_not_have(here: Path) -> None:
    """The error says so, and what a private one takes."""
    data = tiny_pairs.write(here / "data")
    with stand_in_hub.serving(here / "data" / "t5") as (endpoint, _):
        shown = trained(tiny_pairs.config(data, here / "t5.yaml"), endpoint).stderr
    assert shown == (
        "DataError: the config of the model tiny/t5 cannot be had\n"
        "  where  model.source: tiny/t5\n"
        f"  why    {endpoint} has nothing of that name, or shows it only to who logs in (hf auth login)\n"
        "  try    model.source: a directory with config.json (from another machine, say), or a name on the hub\n"
    )


def test_a_hub_that_is_silent_is_given_up_in_one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at the address: one try, in less than the five seconds that an answer may take, and the library's
    own six tries do not follow."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: pytest.fail("it was tried again"))
    with pytest.raises(DataError):
        learner("nobody/nothing")  # loads the library, which may take longer than that
    began = time.monotonic()
    with pytest.raises(DataError) as error:
        learner("nobody/nothing")
    assert time.monotonic() - began < hub.TIMEOUT_S
    assert str(error.value) == (
        "DataError: the config of the model nobody/nothing cannot be had\n"
        "  where  model.source: nobody/nothing\n"
        "  why    http://127.0.0.1:9 does not answer, and nothing of that name was fetched before\n"
        "  try    model.source: a directory with config.json (from another machine, say), or a name on the hub"
    )
