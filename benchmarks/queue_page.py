"""Runs the documents' list of experiments, and writes into docs/queue.md what a terminal shows of it.

    python benchmarks/queue_page.py --write        # some minutes on two CPU cores

Real trainings of models with 6 and 12 layers, 48 wide, on the source code of Python's standard library: started,
stopped by Ctrl-C, started again; then a sweep, with the live view in the middle of it and the summary at its end.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "queue.md"
CONFIG = """\
model:
  n_layer: {layers}
  n_head: 6
  n_embd: 48
  block_size: 64
  dropout: 0.0
train:
  batch_size: 16
  learning_rate: 1e-3
  max_iters: 120
  weight_decay: 0.1
device: cpu
"""
LIST = """\
configs/exp_v100/exp1_layer6.yaml
configs/exp_v100/exp2_layer12.yaml
configs/exp_v100/exp2_layer12.yaml learning_rate=50 name=exp3_hot
configs/exp_v100/exp4_layer24.yaml
"""
WIDTH = 110  # columns


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the captures into docs/queue.md; else print them")
    asked = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is off, also for what is started
    with tempfile.TemporaryDirectory() as directory:
        project = Path(directory).resolve() / "gpt"
        prepare(project)
        captures = {"cat experiment_list.conf": the_list(project)}
        captures |= dict(zip(("ganeum queue watch --once", "ganeum queue summary"), a_sweep(project), strict=True))
    page = PAGE.read_text(encoding="utf-8")
    for command, text in captures.items():
        block = re.compile(rf"^```console\n\$ {re.escape(command)}\n.*?^```$", re.MULTILINE | re.DOTALL)
        made = f"```console\n$ {command}\n{text.strip()}\n```".replace(str(project.parent), "/home/me")
        page = block.sub(lambda found, made=made: made, page)
        print(made)
    if asked.write:
        PAGE.write_text(page, encoding="utf-8")


def prepare(project: Path) -> None:
    """Document 004's files, smaller, and data."""
    configs = project / "configs" / "exp_v100"
    configs.mkdir(parents=True)
    for name, layers in (("exp1_layer6", 6), ("exp2_layer12", 12)):
        (configs / f"{name}.yaml").write_text(CONFIG.format(layers=layers))
    (project / "experiment_list.conf").write_text(LIST)
    (project / "run_manager.py").write_bytes((ROOT / "run_manager.py").read_bytes())
    library = Path(os.__file__).parent
    ganeum(project, "prepare", str(library / "json"), str(library / "email"), "--tokenizer", "bytes",
           "--out", "data/tinystories")  # fmt: skip


def the_list(project: Path) -> str:
    """`python run_manager.py`, Ctrl-C in the middle, and once more to its end."""
    begun = started(project, "run_manager.py")
    until(lambda: steps(project, "exp2_layer12") >= 20)
    begun.send_signal(signal.SIGINT)
    first, _ = begun.communicate()
    second, _ = started(project, "run_manager.py").communicate()
    again = "$ python run_manager.py"
    return f"{LIST}{again}\n{first.strip()}\n\n{again}    # after Ctrl-C\n{second.strip()}"


def a_sweep(project: Path) -> tuple[str, str]:
    """A sweep of three and what comes after it: the live view in its middle, and the summary at its end."""
    config = "configs/exp_v100/exp1_layer6.yaml"
    ganeum(project, "queue", "add", config, "name=lr", "--sweep", "learning_rate=3e-4,1e-3,3e-3")
    ganeum(project, "queue", "add", config, "name=longer", "max_iters=5000", "--after", "lr-learning_rate-3e-3")
    ganeum(project, "queue", "add", config, "name=morning", "--at", "08:00")
    queue = started(project, "-m", "ganeum", "queue", "run")
    until(lambda: steps(project, "lr-learning_rate-1e-3") >= 60)
    view = ganeum(project, "queue", "watch", "--once")
    ganeum(project, "queue", "wait", "--group", "lr")
    summary = ganeum(project, "queue", "summary")
    queue.send_signal(signal.SIGINT)
    queue.communicate()
    ganeum(project, "queue", "kill", "--all", "--now")
    return "\n".join(line.rstrip() for line in view.splitlines()), summary


def steps(project: Path, name: str) -> int:
    found = re.findall(r'"step": ?(\d+)', text(project / "results" / name / "logs" / "metrics.jsonl"))
    return int(found[-1]) if found else 0


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def until(true: Callable[[], bool], patience_s: float = 900.0) -> None:
    deadline = time.monotonic() + patience_s
    while not true():
        if time.monotonic() > deadline:
            sys.exit("the trainings take too long on this machine")
        time.sleep(0.2)


def environment() -> dict[str, str]:
    plain = {"COLUMNS": str(WIDTH), "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}
    others = {name: value for name, value in os.environ.items() if name != "GANEUM_RESULTS"}
    return {**others, **plain, "PYTHONPATH": str(ROOT / "src")}


def started(project: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=project,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def ganeum(project: Path, *words: str) -> str:
    command = [sys.executable, "-m", "ganeum", *words]
    done = subprocess.run(command, cwd=project, env=environment(), capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
