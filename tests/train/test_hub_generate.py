"""`ganeum generate` with a model by its name on the hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import stand_in_hub
import tiny_pairs

from ganeum.cli import main

pytestmark = pytest.mark.slow


def test_a_name_on_the_hub_writes_what_its_directory_writes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights, config and tokenizer come by transformers' real calls. With the hub gone the same command goes on, since
    what was fetched is known by its commit; and the texts are those of the same directory. A name without an owner, as
    the hub's oldest models have, is one too."""
    data = tiny_pairs.write(here / "data")
    source = here / "in.txt"
    source.write_text("cat sees dog\nunder the tree\n")

    def words_for(model: str, out: str) -> list[str]:
        return ["generate", model, "--input", str(source), "--output", str(here / out), "--max-new-tokens", "4"]

    def generate(model: str, out: str, endpoint: str) -> subprocess.CompletedProcess[str]:
        hub = {"HF_ENDPOINT": endpoint, "HF_HOME": str(here / "home"), "NO_PROXY": "127.0.0.1"}
        command = [sys.executable, "-m", "ganeum", *words_for(model, out)]
        return subprocess.run(command, env={**os.environ, **hub}, capture_output=True, text=True, timeout=300)

    with stand_in_hub.serving(data) as (endpoint, fetched):
        first = generate("tiny/t5", "hub.jsonl", endpoint)
        ownerless = generate("t5", "ownerless.jsonl", endpoint)
    assert (first.returncode, ownerless.returncode) == (0, 0), first.stderr + ownerless.stderr
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(fetched)
    again = generate("tiny/t5", "hub.jsonl", endpoint)
    assert (again.returncode, "nothing was left to write" in again.stderr) == (0, True), again.stderr
    with pytest.raises(SystemExit) as end:
        main(words_for(str(data / "t5"), "local.jsonl"))
    assert not end.value.code, capsys.readouterr().err
    texts = (here / "local.jsonl").read_bytes()
    assert texts == (here / "hub.jsonl").read_bytes() == (here / "ownerless.jsonl").read_bytes()


def test_a_name_that_is_neither_a_run_nor_on_the_hub(here: Path) -> None:
    """A mistyped run is asked for on the hub, and then called what it is."""
    (here / "in.txt").write_text("cat\n")
    words = ["generate", "docstring", "--input", str(here / "in.txt"), "--output", str(here / "out.jsonl")]
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(here / "home")}
    command = [sys.executable, "-m", "ganeum", *words]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=300)
    what, where, why, advice = done.stderr.splitlines()
    assert (done.returncode, what) == (2, "RunError: there is no run docstring")
    assert why == "  why    nor is it the name of a model that the hub has, or that was fetched from it before"
    assert where.startswith("  where  ")
    assert advice == "  try    `ganeum runs` lists the runs there are"
