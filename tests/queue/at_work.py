"""What tests of queue processes share: a list of runs that pretend to train, and queues that work on it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ganeum.config import load
from ganeum.queue import freeze, manager
from ganeum.queue.entry import Entry
from ganeum.queue.placement import Placed, Placement, Wait
from ganeum.queue.store import Store

PRETEND = (sys.executable, str(Path(__file__).with_name("pretend.py")))
MANAGER = """
import sys
sys.path.insert(0, {here!r})
from at_work import PRETEND, two
from ganeum.queue import manager
from ganeum.queue.store import Store
manager.run(Store.default(), until_empty=True, place=two, train=PRETEND, poll_s=0.02)
"""
STAND_IN = Path(__file__).with_name("stand_in.py")
# One at a time, so that what is printed has one order.
QUEUE = f"""
import sys
from ganeum.cli import main
from ganeum.queue import manager
from ganeum.queue.placement import Placed, Wait
manager.TRAIN = (sys.executable, {str(STAND_IN)!r})
manager.on_this_machine = lambda per_gpu: lambda entry, running: Wait("busy") if running else Placed("cpu")
main(["queue", *sys.argv[1:]])
"""


def two() -> Callable[[Entry, Sequence[Entry]], Placement]:
    return lambda entry, going: Placed("cpu") if len(going) < 2 else Wait("busy")


def add(store: Store, name: str, how: str = "good", **wanted: Any) -> Entry:
    Path("config.yaml").write_text(f"data: {{directory: {how}}}\ntrain: {{max_iters: 10, batch_size: 8}}\n")
    overrides = [f"name={name}", *wanted.pop("overrides", [])]
    [entry] = freeze.add(store, [(load("config.yaml", overrides), Entry("", **wanted))])
    return entry


def work(store: Store, **settings: Any) -> list[str]:
    """Until nothing is left to do → what it said."""
    said: list[str] = []
    options = {"until_empty": True, "place": two, "train": PRETEND, "poll_s": 0.02, "say": said.append, **settings}
    manager.run(store, **options)
    return said


def queue_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", MANAGER.format(here=str(Path(__file__).parent))])


def history() -> list[str]:
    return Path("history").read_text().splitlines() if Path("history").exists() else []


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def states(store: Store) -> dict[str, str]:
    return {entry.name: entry.state for entry in store.all()}


def changed(id: int, **settings: object) -> Entry:
    """As if something had happened to an entry."""
    with Store.default() as store:
        entry = store.update(id, **settings)
    assert entry is not None
    return entry
