"""The first process of an attempt: it takes the entry, starts the training, and writes down how that ended.

`python -m ganeum.queue.child LIST ID TOKEN COMMAND…`, in a session of its own. It takes the entry itself, in one
transaction that only the token of its own attempt can win: whenever the queue that started it dies, the entry is either
its own or given back, and never trained twice. It outlives that queue, and the next one reads what it left.
"""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

import psutil

from ganeum.errors import QueueError
from ganeum.hardware import limits
from ganeum.queue.process import Identity, is_first, members
from ganeum.queue.store import Store
from ganeum.record import RunDirectory, write_json
from ganeum.units import GIB

NOT_TAKEN = 75  # exit status: the entry was given back meanwhile, or the list could not be written
PATIENCE_S = 120.0  # for a list that is locked, or a disk that is full
TRIES, TRY_AGAIN_S = 3, 1.0  # to write down how it ended, on a disk that fails


@dataclass
class Training:
    """The training, once it is there; hands SIGTERM on to it once, since a second one would cost it its checkpoint."""

    marker: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    asked: bool = False
    handed_on: bool = field(default=False, init=False)

    def stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        self.asked = True
        if self.process is not None and self.marker is not None and not self.handed_on:
            self.handed_on = True
            if is_first(self.marker):
                self.process.send_signal(signal.SIGTERM)


def main(words: list[str]) -> int:
    path, id, token, *command = words
    training = Training()
    signal.signal(signal.SIGTERM, training.stop)
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    taken = _take(Path(path), int(id), token)
    if taken is None:
        return NOT_TAKEN
    run, wanted = taken
    training.marker = asked_path(run, token)
    counter = limits.oom_counter()
    kills = limits.oom_kills(counter) if counter else None
    try:
        status = -signal.SIGTERM if wanted or training.asked else _train(command, training)
    except OSError as error:  # no memory for another process, say
        print(f"the training cannot be started: {error}", flush=True)
        status = NOT_TAKEN
    _end_others(token)
    now = limits.oom_kills(counter) if counter else None
    killed = now - kills if now is not None and kills is not None else 0
    seconds = Identity.of_this_process().age_s()
    left = {"token": token, "exit_status": status, "oom_kills": killed, "seconds": seconds, "peak_gib": _peak_gib()}
    _note(run, left, training)
    return status if status >= 0 else 128 - status


def ended_path(run: RunDirectory) -> Path:
    """What `main` leaves: token, exit_status (negative: a signal's number), oom_kills (the kernel's), seconds,
    peak_gib, the most that one of its processes held of the machine's memory, and disk_full, where it had to wait."""
    return run.queued_dir / "ended.json"


def asked_path(run: RunDirectory, token: str) -> Path:
    """Made by whoever asks the training of an attempt to end: it is asked once."""
    return run.queued_dir / f"asked-{token}"


def _take(path: Path, id: int, token: str) -> tuple[RunDirectory, str] | None:
    """The entry's run, and what was asked of it meanwhile; None where it is not, or no more, this attempt's."""
    me, deadline = Identity.of_this_process(), time.monotonic() + PATIENCE_S
    while True:
        try:
            with Store(path) as store:
                mine = store.update(
                    id, ("starting",), attempt=token,
                    state="running", **asdict(me), started_at=time.time(),
                )  # fmt: skip
                return (store.run(mine), mine.wanted) if mine is not None else None
        except QueueError as error:
            if error.kind not in ("locked", "full") or time.monotonic() > deadline:
                print(error, flush=True)
                return None
            time.sleep(1.0)


def _train(command: list[str], training: Training) -> int:
    training.process = subprocess.Popen(command)
    if training.asked:
        training.stop()
    return training.process.wait()


def _end_others(token: str) -> None:
    """What the training has left behind, data workers say, ends with it."""
    for process in members(token):
        if process.pid != psutil.Process().pid:
            with suppress(psutil.Error):
                process.kill()


def _peak_gib() -> float | None:
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / GIB


def _note(run: RunDirectory, content: dict[str, object], training: Training) -> None:
    """Beside the run. A full disk is waited for, unless the run was asked to end: the queue can note nothing there
    either, and by the time that it can, nobody else knows that the disk was full."""
    tries = 0
    while tries < TRIES or (content.get("disk_full") and not training.asked):
        try:
            write_json(ended_path(run), content)
            return
        except OSError as error:
            tries += 1
            content = {**content, "disk_full": error.errno in (errno.ENOSPC, errno.EDQUOT)}
            with suppress(OSError):  # the log lies on the same disk
                if tries <= TRIES:
                    print(f"how it ended cannot be written down: {error}", flush=True)
            time.sleep(TRY_AGAIN_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
