"""`ganeum generate` with a model by its name on the hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import stand_in_hub
import tiny_pairs


def test_a_name_on_the_hub_writes_what_its_directory_writes(here: Path) -> None:
    """Weights, config and tokenizer come by transformers' real calls. With the hub gone the same command goes on, since
    what was fetched is known by its commit; and the texts are those of the same directory."""
    data = tiny_pairs.write(here / "data")
    source = here / "in.txt"
    source.write_text("cat sees dog\nunder the tree\n")

    def generate(name: str, out: str, endpoint: str) -> subprocess.CompletedProcess[str]:
        words = ["generate", name, "--input", str(source), "--output", str(here / out), "--max-new-tokens", "4"]
        hub = {"HF_ENDPOINT": endpoint, "HF_HOME": str(here / "home"), "NO_PROXY": "127.0.0.1"}
        command = [sys.executable, "-m", "ganeum", *words]
        return subprocess.run(command, env={**os.environ, **hub}, capture_output=True, text=True, timeout=300)

    with stand_in_hub.serving(data) as (endpoint, fetched):
        first = generate("tiny/t5", "hub.jsonl", endpoint)
    assert first.returncode == 0, first.stderr
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(fetched)
    again = generate("tiny/t5", "hub.jsonl", endpoint)
    assert (again.returncode, "nothing was left to write" in again.stderr) == (0, True), again.stderr
    assert generate(str(data / "t5"), "local.jsonl", endpoint).returncode == 0
    assert (here / "hub.jsonl").read_bytes() == (here / "local.jsonl").read_bytes()
