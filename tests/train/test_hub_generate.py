"""`ganeum generate` with a model by its name on the hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import stand_in_hub
import tiny_pairs


@pytest.mark.parametrize("name", ["tiny/t5", "t5"])
def test_a_name_on_the_hub_writes_what_its_directory_writes(here: Path, name: str) -> None:
    """Weights, config and tokenizer come by transformers' real calls. With the hub gone the same command goes on, since
    what was fetched is known by its commit; and the texts are those of the same directory."""
    data = tiny_pairs.write(here / "data")
    source = here / "in.txt"
    source.write_text("cat sees dog\nunder the tree\n")

    def generate(model: str, out: str, endpoint: str) -> subprocess.CompletedProcess[str]:
        words = ["generate", model, "--input", str(source), "--output", str(here / out), "--max-new-tokens", "4"]
        hub = {"HF_ENDPOINT": endpoint, "HF_HOME": str(here / "home"), "NO_PROXY": "127.0.0.1"}
        command = [sys.executable, "-m", "ganeum", *words]
        return subprocess.run(command, env={**os.environ, **hub}, capture_output=True, text=True, timeout=300)

    with stand_in_hub.serving(data) as (endpoint, fetched):
        first = generate(name, "hub.jsonl", endpoint)
    assert first.returncode == 0, first.stderr
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(fetched)
    again = generate(name, "hub.jsonl", endpoint)
    assert (again.returncode, "nothing was left to write" in again.stderr) == (0, True), again.stderr
    assert generate(str(data / "t5"), "local.jsonl", endpoint).returncode == 0
    assert (here / "hub.jsonl").read_bytes() == (here / "local.jsonl").read_bytes()


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
