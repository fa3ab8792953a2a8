"""The doctor's reading commands start without torch, answer in text and JSON, and never with a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
CODE = """
import sys
from ganeum.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
assert 'torch' not in sys.modules
"""
COMMANDS = {
    "gpu": ["gpu", "--from-text", str(HERE / "logs" / "one_book.txt"), "--run-seconds", "34414"],
    "log": ["log", str(HERE / "logs" / "one_book.txt"), "configs/one_book.yaml", "--gpu", "RTX 5080 Laptop"],
    "config": ["config", "configs/one_book.yaml", "--tokens", "130520", "--gpu", "RTX 4090"],
    "compare": ["compare", "-", str(HERE / "logs" / "one_book.txt")],
    "memory": ["memory", "configs/one_book.yaml", "--tokens", "130520", "--gpu", "RTX 4090", "--no-trace"],
    "script": ["script", str(ROOT / "benchmarks" / "throughput.py")],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_answers_without_torch_in_json_and_in_a_file(name: str, tmp_path: Path) -> None:
    """Exit status 0, JSON of the documented form on standard output, the same in the file, and no torch."""
    out = tmp_path / "doctor.json"
    command = [sys.executable, "-c", CODE, "doctor", *COMMANDS[name], "--json", "-o", str(out)]
    pasted = (HERE / "logs" / "one_book.txt").read_text(encoding="utf-8")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, input=pasted, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert ["subject", "headline", "findings", "ruled_out", "without_effect", "facts"] == list(report)
    assert report == json.loads(out.read_text())
    for finding in report["findings"]:
        assert {"cause", "kind", "severity", "title", "evidence", "sure", "confirmed_by"} <= set(finding)
        assert finding["evidence"] or finding["size"], finding


def test_a_run_of_ours_is_held_against_its_own_plan(tmp_path: Path) -> None:
    """Its metrics, its config and the device that its plan names are taken from its directory."""
    run = tmp_path / "tiny"
    (run / "logs").mkdir(parents=True)
    config = subprocess.run(
        [sys.executable, "-c", "from ganeum.config import *; print(to_yaml(load('configs/one_book.yaml')))"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (run / "config.yaml").write_text(config)
    (run / "plan.json").write_text(json.dumps({"device": {"kind": "cuda", "name": "GeForce RTX 4090"}}))
    rows = [
        {"step": n, "loss": 10.8 - n / 50, "step_time_s": 3.0, "data_s": 2.8, "forward_s": 0.1, "backward_s": 0.1}
        for n in range(1, 40)
    ]
    (run / "logs" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "ganeum", "doctor", "log", str(run), "--tokens", "130520", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "on GeForce RTX 4090" in report["headline"]
    slow = report["findings"][0]
    assert "unexplained_time" == slow["cause"]
    assert "the longest part of a step is data: 2.8 s" in slow["evidence"]
    (wait,) = (finding for finding in report["findings"] if finding["cause"] == "loader")
    assert ("measured", pytest.approx(2.8 / 3.0)) == (wait["sure"], wait["size"])
