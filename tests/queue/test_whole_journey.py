"""`python run_manager.py` with the real training, as document 004 has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ganeum.config import load_stored
from ganeum.record import find, read_metrics

RUN_MANAGER = Path(__file__).parents[2] / "run_manager.py"
CONFIG = """\
model: {n_layer: 1, n_head: 2, n_embd: 16, block_size: 16}
data: {directory: tokens}
train: {batch_size: 2, max_iters: 4, compile: false}
log: {tensorboard: false}
device: cpu
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 100)
    prepare = ["prepare", "text.txt", "--tokenizer", "bytes", "--out", "tokens"]
    subprocess.run([sys.executable, "-m", "ganeum", *prepare], check=True, capture_output=True)


def run_manager() -> tuple[int, list[list[str]], str]:
    """Exit status; experiment and state of each row of the table; everything it printed."""
    done = subprocess.run([sys.executable, str(RUN_MANAGER)], capture_output=True, text=True, check=False)
    table = done.stdout[done.stdout.index("id  run ") :].split("\n\n")[0].splitlines()[1:]
    return done.returncode, [line.split()[1:3] for line in table], done.stdout + done.stderr


@pytest.mark.slow
def test_two_experiments_and_a_broken_one() -> None:
    """Two are trained, the one between them fails and stops nothing; a second start trains nothing again."""
    Path("one.yaml").write_text(CONFIG)
    Path("broken.yaml").write_text("base: one.yaml\ndata: {directory: nowhere}\n")
    Path("two.yaml").write_text("base: one.yaml\nmodel: {n_layer: 2}\n")
    Path("experiment_list.conf").write_text("one.yaml\nbroken.yaml\ntwo.yaml\n")
    expected = [["one", "finished"], ["broken", "failed"], ["two", "finished"]]
    status, rows, printed = run_manager()
    assert (1, expected) == (status, rows), printed
    assert "DataError: " in printed
    assert [1, 2] == [load_stored(find(name).config_path).model.n_layer for name in ("one", "two")]
    Path("experiment_list.conf").write_text("one.yaml\ntwo.yaml\n")
    written = find("one").metrics_path.stat().st_mtime_ns
    assert (0, [["one", "finished"], ["two", "finished"]]) == run_manager()[:2]
    assert written == find("one").metrics_path.stat().st_mtime_ns


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.slow
def test_ctrl_c_ends_the_training_with_a_checkpoint_and_the_queue_with_130() -> None:
    """Ctrl-C in the middle of a training: its state is saved where it was, and the queue ends."""
    Path("long.yaml").write_text(CONFIG.replace("max_iters: 4", "max_iters: 100_000_000"))
    Path("experiment_list.conf").write_text("long.yaml\n")
    with subprocess.Popen(
        [sys.executable, str(RUN_MANAGER)], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        metrics = Path("results/long/logs/metrics.jsonl")
        deadline = time.monotonic() + 120
        while not list(read_metrics(metrics)):
            assert time.monotonic() < deadline
            assert running.poll() is None
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGINT)
        printed, _ = running.communicate(timeout=60)
    assert 130 == running.returncode, printed
    status = find("long").status()
    assert status is not None
    assert "interrupted" == status.state
    assert find("long").checkpoint_dir(status.step).is_dir()
