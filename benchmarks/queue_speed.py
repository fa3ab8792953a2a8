"""A list of 1,000 entries: how long `ganeum queue list` takes beside `ganeum --help`, and what an idle queue costs.

    python benchmarks/queue_speed.py -o benchmarks/results/queue_speed.json

The two commands run by turns, and the best of each counts: on a busy machine the others measure the neighbours. The
list has as many events as are ever kept; what opening it takes is measured beside the check of the whole file that is
part of that. The idle queue has one run going and the rest waiting for its device; its processor time is read over
--seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import psutil

import ganeum
from ganeum.config import load
from ganeum.hardware.machine import cpu_name
from ganeum.queue import freeze
from ganeum.queue.entry import Entry
from ganeum.queue.store import EVENTS_KEPT, Store

CONFIG = (
    "model: {n_layer: 1, n_head: 2, n_embd: 16, block_size: 16}\ntrain: {batch_size: 2, max_iters: 4}\ndevice: cpu\n"
)
MANAGER = """
import sys
from pathlib import Path
from ganeum.queue import manager
from ganeum.queue.store import EVENTS_KEPT, Store
sleeping = [sys.executable, "-c", "import time; time.sleep(3600)", "train"]
manager.run(Store(Path(sys.argv[1])), train=sleeping)
"""


def taken(*words: str) -> float:
    """Seconds of a command."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ganeum", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def fill(path: Path) -> None:
    """With events, as many as are kept: what each start and each end of a run writes down."""
    with closing(sqlite3.connect(path)) as list_, list_:
        events = [(0.0, 1 + number % 1000, "started", f"attempt {number} on cpu") for number in range(EVENTS_KEPT)]
        list_.executemany("INSERT INTO events (time, entry, what, text) VALUES (?, ?, ?, ?)", events)


def opening(path: Path, times: int) -> tuple[float, float]:
    """Milliseconds of opening the list, and of the check that is part of it; the best of each."""
    opened, checked = [], []
    for _ in range(times):
        begun = time.perf_counter()
        Store(path).close()
        opened.append(time.perf_counter() - begun)
        with closing(sqlite3.connect(path)) as list_:
            begun = time.perf_counter()
            list_.execute("PRAGMA quick_check(1)").fetchone()
            checked.append(time.perf_counter() - begun)
    return 1e3 * min(opened), 1e3 * min(checked)


def idle_share(results: Path, seconds: float) -> float:
    """Of one core, once the manager has settled; its run and all that it started are ended."""
    manager = subprocess.Popen(
        [sys.executable, "-c", MANAGER, str(results / "queue.sqlite")],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    process = psutil.Process(manager.pid)
    try:
        time.sleep(15.0)
        before, begun = process.cpu_times(), time.monotonic()
        time.sleep(seconds)
        after = process.cpu_times()
        return (after.user + after.system - before.user - before.system) / (time.monotonic() - begun)
    finally:
        for one in [*process.children(recursive=True), process]:
            one.kill()
        manager.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1000)
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("-o", type=Path, help="write the figures here, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="queue_speed_") as directory:
        results = Path(directory) / "results"
        os.environ["GANEUM_RESULTS"] = str(results)
        yaml = Path(directory) / "tiny.yaml"
        yaml.write_text(CONFIG)
        wanted = [(load(yaml, [f"name=run{n}"]), Entry(name=f"run{n}")) for n in range(options.entries)]
        begun = time.perf_counter()
        with Store(results / "queue.sqlite") as store:
            freeze.add(store, wanted)
        added = time.perf_counter() - begun
        fill(results / "queue.sqlite")
        open_ms, check_ms = opening(results / "queue.sqlite", options.times)
        help_s, list_s = [], []
        for _ in range(options.times):
            help_s.append(taken("--help"))
            list_s.append(taken("queue", "list"))
        told = {
            "entries": options.entries,
            "add_s": round(added, 2),
            "mib": round((results / "queue.sqlite").stat().st_size / 2**20, 1),
            "open_ms": round(open_ms, 1),
            "check_ms": round(check_ms, 1),
            "help_s": round(min(help_s), 3),
            "list_s": round(min(list_s), 3),
            "list_more_than_help_s": round(min(list_s) - min(help_s), 3),
            "list_more_than_help_median_s": round(statistics.median(list_s) - statistics.median(help_s), 3),
            "idle_share_of_a_core": round(idle_share(results, options.seconds), 4),
            "ganeum": ganeum.__version__,
            "python": platform.python_version(),
            "cpu": cpu_name(),
            "date": time.strftime("%Y-%m-%d"),
        }
    text = json.dumps(told, indent=2)
    print(text)
    if options.o:
        options.o.write_text(text + "\n")


if __name__ == "__main__":
    main()
