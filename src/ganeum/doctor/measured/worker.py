"""A variant of a training in a process of its own, which stands still while another one is measured.

Idle means idle: between two commands the process and all that it started (loaders, watchers, programs of its own) are
stopped, so that they neither take a core from the variant that is measured nor work ahead for their own next block.
"""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Pipe
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ganeum.doctor.finding import Finding
from ganeum.doctor.measured.fork_server import ForkServer, early
from ganeum.doctor.measured.remedy import Remedy
from ganeum.doctor.measured.subject import WHERE, is_own, needs_transformers, request, settled
from ganeum.doctor.measured.training import Block, Subject
from ganeum.errors import DeviceError

LIMIT_S = 300.0  # for one command: large models are built and compiled in it
LAST = 4_000  # bytes of what a worker printed, that are looked at when it has ended
WHERE_S, FRAME = 1.0, re.compile(r'File "(.+)", line (\d+) in ')  # of faulthandler's answer, the innermost first
# What every training loads sooner or later, an optimizer's first step included; imported once, before all forks.
MODULES = (
    "torch",
    "torch._dynamo",
    *(f"ganeum.doctor.measured.{name}" for name in ("inside", "ours", "acts", "facts")),
)

TRANSFORMERS = (
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
)


class Gone(Exception):
    """The process ended, failed or did not answer in time; the text says why, ``memory``: for want of memory,
    ``suggestion``: what to try, where that is known."""

    def __init__(self, why: str, *, memory: bool = False, suggestion: str = "") -> None:
        super().__init__(why)
        self.memory, self.suggestion = memory, suggestion


class Workers:
    """All variants of one subject, and the servers that they are forked from; they end with the ``with`` block."""

    def __init__(self, subject: Subject, *, limit_s: float = LIMIT_S) -> None:
        if not hasattr(os, "fork"):
            raise DeviceError(
                "a training is measured in processes that are forked, and this system has none",
                suggestion="Linux, macOS, or WSL on Windows",
            )
        self.subject, self.limit_s = settled(subject), limit_s
        self._servers: dict[tuple[tuple[str, str | None], ...], ForkServer] = {}
        self._modules: tuple[str, ...] = MODULES + (TRANSFORMERS if needs_transformers(self.subject) else ())
        self._open: list[Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, remedies: Sequence[Remedy] = ()) -> Worker:
        """A variant, built; no step is taken yet.

        Raises:
            Gone: it cannot be built.
        """
        environment = {name: value for remedy in remedies for name, value in remedy.environment.items()}
        worker = Worker(self._server(early(environment)), environment, self.limit_s)
        self._open.append(worker)
        try:
            worker.ask("build", what=request(self.subject, remedies))
        except BaseException:
            worker.close()
            raise
        return worker

    def empty(self) -> Worker:
        """A process in which nothing is built: functions are called there."""
        worker = Worker(self._server({}), {}, self.limit_s)
        self._open.append(worker)
        return worker

    def learn(self, worker: Worker) -> None:
        """What one variant had to load the next ones find loaded."""
        self._modules = tuple(worker.ask("modules"))
        for server in self._servers.values():
            server.load(self._modules)

    def close(self) -> None:
        """Ends everything."""
        for worker in self._open:
            worker.close()
        for server in self._servers.values():
            server.close()
        self._open, self._servers = [], {}

    def _server(self, environment: Mapping[str, str | None]) -> ForkServer:
        key = tuple(sorted(environment.items()))
        if key not in self._servers:
            self._servers[key] = ForkServer(environment, self._modules)
        return self._servers[key]


class Worker:
    """One variant of a training."""

    def __init__(self, server: ForkServer, environment: Mapping[str, str | None], limit_s: float) -> None:
        self.limit_s = limit_s
        self._server, self._ended = server, False
        self._printed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with it)
        self._pipe, theirs = Pipe()
        with theirs:
            try:
                self.pid = server.fork(environment, theirs.fileno(), self._printed.fileno())
            except OSError as error:  # that process is gone, or no other has room
                self._pipe.close()
                self._printed.close()
                raise Gone(f"no process can be started for it: {error}") from None
        self._alone: Workers | None = None

    @classmethod
    def start(cls, subject: Subject, remedies: Sequence[Remedy] = ()) -> Worker:
        """One variant alone, built; no step is taken yet. :class:`Workers` starts several faster.

        Raises:
            Gone: it cannot be built.
        """
        workers = Workers(subject)
        try:
            worker = workers.start(remedies)
        except BaseException:
            workers.close()
            raise
        worker._alone = workers
        return worker

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def facts(self) -> Mapping[str, Any]:
        """What remedies are chosen by: ``facts.of(training)``, called in the worker."""
        found: Mapping[str, Any] = self.ask("facts")
        return found

    def examine(self) -> list[Finding]:
        """``ganeum.doctor.examine.examine(training)``, called in the worker."""
        found: list[Finding] = self.ask("examine")
        return found

    def rewind(self) -> None:
        """Batches from their beginning; all workers that can draw the same order do so."""
        self.ask("rewind")

    def warm(self, seconds: float = 0.3, least: int = 3) -> float:
        """Uncounted steps, ``least`` and then until ``seconds`` have passed → seconds of the quickest."""
        quickest: float = self.ask("warm", seconds=seconds, least=least)
        return quickest

    def block(self, steps: int) -> Block:
        """Some steps."""
        block: Block = self.ask("block", steps=steps)
        return block

    def watch(self, steps: int) -> Block:
        """Some steps with the seconds of each, the device waited for after each."""
        block: Block = self.ask("watch", steps=steps)
        return block

    def phases(self, steps: int) -> Block:
        """Some steps with the seconds of their parts; the device is waited for at each, so the sum is no measure."""
        block: Block = self.ask("phases", steps=steps)
        return block

    def limit(self) -> Mapping[str, Any]:
        """What the device could do at the best with steps like its own."""
        found: Mapping[str, Any] = self.ask("limit")
        return found

    def start_s(self) -> float:
        """Seconds that its first steps took beyond what its quickest one takes: compiling, for one."""
        seconds: float = self.ask("start_s")
        return seconds

    def peak(self) -> Mapping[str, float]:
        """GiB: ``allocated`` and ``reserved`` on a GPU, ``resident`` of the process."""
        peak: Mapping[str, float] = self.ask("peak")
        return peak

    def call(self, module: str, function: str, **arguments: Any) -> Any:
        """A function of this package, run there, where torch may be loaded."""
        return self.ask("call", module=module, function=function, arguments=arguments)

    def ask(self, command: str, **arguments: Any) -> Any:
        """What :class:`ganeum.doctor.measured.inside.Inside` answers.

        Raises:
            Gone: the process ended, failed or took longer than ``limit_s``.
        """
        if self._ended:
            raise Gone("its process has been ended")
        self._signal(signal.SIGCONT)
        try:
            self._pipe.send((command, arguments))
            if not self._pipe.poll(self.limit_s):
                where = self._where()
                self.close()
                raise Gone(f"it took longer than {self.limit_s:g} s{where}")
            how, answer = self._pipe.recv()
        except (EOFError, OSError):
            raise self._gone() from None
        except BaseException:
            self.close()  # an answer to this would be taken for the next one's
            raise
        if how == "failed":
            raise Gone(answer["why"], memory=answer["memory"], suggestion=answer["suggestion"])
        self._signal(signal.SIGSTOP)
        return answer

    @property
    def is_alive(self) -> bool:
        """Whether it still answers."""
        try:
            self.peak()
        except Gone:
            return False
        return True

    def close(self) -> None:
        """Ends the process, and what it started."""
        if not self._ended:
            self._end()
        if self._alone is not None:
            alone, self._alone = self._alone, None
            alone.close()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # a zombie on macOS is not permitted
            os.killpg(self.pid, number)

    def _where(self) -> str:
        """The line that it is at, of its own file where there is one."""
        assert WHERE is not None, "a system that can fork has it"
        before, end = os.fstat(self._printed.fileno()).st_size, time.monotonic() + WHERE_S
        with suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, WHERE)
        while not (found := FRAME.findall(self._said(before))) and time.monotonic() < end:
            time.sleep(0.02)
        theirs = [place for place in found if is_own(place[0])] or found
        return f": it is at {Path(theirs[0][0]).name}, line {theirs[0][1]}" if theirs else ""

    def _said(self, since: int | None = None) -> str:
        """What it printed last; the file's own place, which the process shares, stays where it is."""
        file = self._printed.fileno()
        return os.pread(file, LAST, max(0, os.fstat(file).st_size - LAST) if since is None else since).decode(
            "utf-8", "replace"
        )

    def _end(self) -> tuple[int, str]:
        """→ how it ended, and the last line that it printed."""
        self._ended, status = True, 0
        self._pipe.close()
        try:
            status = self._server.end(self.pid)
        except OSError:  # that process is gone itself
            self._signal(signal.SIGKILL)
        with self._printed:
            said = self._said().split("\n")
        return status, next((line.strip() for line in reversed(said) if line.strip()), "")

    def _gone(self) -> Gone:
        status, said = self._end()
        if status == -signal.SIGKILL:
            return Gone("the system ended it, which it does where memory runs out", memory=True)
        how = f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
        return Gone(f"its process {how}" + (f" ({said})" if said else ""))
