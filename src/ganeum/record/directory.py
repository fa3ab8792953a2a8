"""The run directory: every path in it, and who may write to it now."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from filelock import FileLock, Timeout

from ganeum.errors import RunError
from ganeum.record.status import Status

LOCK_PATIENCE_S = 2.0  # a process that was just killed needs a moment until the system lets go of its lock


class RunDirectory:
    """`results/NAME`: the one place that knows the names of the files in it. Making one touches no disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.config_path = path / "config.yaml"
        self.plan_path = path / "plan.json"
        self.environment_path = path / "environment.json"
        self.status_path = path / "status.json"
        self.summary_path = path / "summary.json"
        self.tokenizer_dir = path / "tokenizer"
        self.logs_dir = path / "logs"
        self.metrics_path = self.logs_dir / "metrics.jsonl"
        self.system_path = self.logs_dir / "system.jsonl"
        self.console_path = self.logs_dir / "console.log"
        self.checkpoints_dir = path / "checkpoints"
        self.samples_dir = path / "samples"
        self.queued_dir = path / "queued"  # of the queue, before there is a run and beside it
        self.queue_log_path = self.queued_dir / "output.log"
        # Beside the run and not in it, so that it can be held while the run is replaced.
        self._lock = FileLock(path.parent / ".locks" / path.name, thread_local=False)

    def checkpoint_dir(self, step: int) -> Path:
        """`checkpoints/step-00001000`."""
        return self.checkpoints_dir / f"step-{step:08d}"

    def sample_path(self, step: int) -> Path:
        """`samples/step-00001000.txt`."""
        return self.samples_dir / f"step-{step:08d}.txt"

    def exists(self) -> bool:
        """Whether it is a run: a directory whose making was cut short holds no config and is none."""
        return self.config_path.is_file()

    def status(self) -> Status | None:
        return Status.read(self.status_path)

    def acquire(self) -> None:
        """Take the run for this process alone. The system lets go when the process ends, however it ends.

        Raises:
            RunError: another process has it.
        """
        Path(self._lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=LOCK_PATIENCE_S)
        except Timeout:
            status = self.status()
            who = f"process {status.pid}" if status and status.is_alive() else "another process"
            raise RunError(
                f"the run {self.name} is being trained by {who}",
                where=str(self.path),
                why="two processes in one run would overwrite each other's checkpoints",
                suggestion="wait for it, stop it, or start this one under another name: name=" + free_name(self.path),
            ) from None

    def release(self) -> None:
        """Let another process have it. Nothing happens if this one does not."""
        self._lock.release(force=True)

    def is_held(self) -> bool:
        """Whether a process has the run, in whatever container: the system keeps the lock, not a process id."""
        lock = FileLock(self._lock.lock_file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        except OSError:  # nobody has ever had it, or it cannot be asked
            return False
        lock.release()
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunDirectory) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"


def results_dir() -> Path:
    """Where the runs lie: $GANEUM_RESULTS, or `results` where the user stands."""
    return Path(os.environ.get("GANEUM_RESULTS") or "results")


def runs() -> list[RunDirectory]:
    """Every run under `results_dir()`, by name."""
    root = results_dir()
    found = sorted(root.iterdir()) if root.is_dir() else []
    return [run for path in found if path.name[0] != "." and (run := RunDirectory(path)).exists()]


def find(name_or_path: str | os.PathLike[str]) -> RunDirectory:
    """The run called so under `results_dir()`, or the one at that path.

    Raises:
        RunError: there is none; the nearest name is suggested.
    """
    for path in (results_dir() / name_or_path, Path(name_or_path)):
        run = RunDirectory(path.resolve() if path.name in ("", "..") else path)
        if run.exists():
            return run
    names = [run.name for run in runs()]
    near = difflib.get_close_matches(Path(name_or_path).name, names, n=3, cutoff=0.5)
    raise RunError(
        f"there is no run {os.fspath(name_or_path)}",
        where=str(results_dir()),
        suggestion=" or ".join(near) or "`ganeum runs` lists the runs there are",
    )


def free_name(path: Path) -> str:
    """The first of NAME-2, NAME-3, … that no run has."""
    number = 2
    while path.with_name(f"{path.name}-{number}").exists():
        number += 1
    return f"{path.name}-{number}"
