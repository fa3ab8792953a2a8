"""Runs that hands or disks have hurt, and readers who leave: an error that names the file, or the training goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_a_reader_who_leaves_does_not_end_the_training(yaml: Path) -> None:
    """`ganeum train … | head -1`: a real pipe, closed before the first line; all is in console.log, exit status 0."""
    words = [sys.executable, "-m", "ganeum", "train", str(yaml)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (0, "")
    assert json.loads(Path("results/tiny/status.json").read_text())["state"] == "finished"
    assert "Training Finished!" in Path("results/tiny/logs/console.log").read_text(encoding="utf-8")
