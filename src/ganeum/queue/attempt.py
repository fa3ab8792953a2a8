"""Starts the first process of an attempt, in a session of its own, with what it may see of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ganeum.queue import freeze, process
from ganeum.queue.entry import Entry
from ganeum.queue.placement import Placed
from ganeum.queue.settle import HEADING
from ganeum.queue.store import Store


def spawn(store: Store, entry: Entry, token: str, placed: Placed, train: Sequence[str]) -> subprocess.Popen[bytes]:
    """The process that is to take a claimed entry; what it and the training print goes to the log beside the run.

    Args:
        train: the command that trains; the frozen config follows.

    Raises:
        OSError: it cannot be started, or its log cannot be written.
    """
    run, list_ = store.run(entry), store.path.resolve()
    child = [sys.executable, "-m", "ganeum.queue.child", str(list_), str(entry.id), token]
    words = [*train, str(freeze.config_path(run).resolve()), *placed.arguments]
    environment = {
        **os.environ,
        **placed.environment,
        process.TOKEN: token,
        "GANEUM_RESULTS": str(list_.parent),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # a file where the user stood that is called as a module of Python's is none
    }
    if path := os.environ.get("PYTHONPATH"):  # the child stands elsewhere
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(part).resolve()) for part in path.split(os.pathsep))
    with run.queue_log_path.open("ab") as log:
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        log.write(f"{HEADING} {entry.attempts}, {when}, on {placed.device} ===\n".encode())
        log.flush()
        return subprocess.Popen(
            [*child, *words],
            cwd=entry.cwd or None,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # neither Ctrl-C nor the end of the queue is its business
        )
