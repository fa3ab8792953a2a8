"""A process that has loaded torch and touched nothing of it, and forks a child per variant: they start in no time, and
with the same layout of their memory, so that two of them are as alike as two processes can be.

It is spoken to in lines of JSON over a Unix socket, one request at a time; the child's end of its pipe travels with the
request. When the socket closes, whatever happened to the other side, all children are ended.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import process
from pathlib import Path
from typing import Any

from ganeum.doctor.measured import cores

EARLY = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "ONEDNN_", "DNNL_", "LD_", "MALLOC_", "GLIBC_", "PYTHON")
SAFE = "PYTORCH_NVML_BASED_CUDA_CHECK"  # asks NVML, not CUDA, which a parent of forks must not have started
LONGEST = 1 << 20  # bytes of a request
# Programs that clear away shared memory when those who used it are gone, and the seconds that they have for it.
CLEARING, CLEARING_S = (b"resource_tracker", b"torch_shm_manager"), 5.0
PLACE, YOUNG_S = "ganeum-doctor-", 5.0  # of a directory: its name; before which nobody may have locked it yet
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)


def early(environment: Mapping[str, str | None]) -> dict[str, str | None]:
    """Those variables that libraries read when they are loaded: they need a server of their own."""
    return {name: value for name, value in environment.items() if name.startswith(EARLY)}


class ForkServer:
    """The asking side.

    Args:
        environment: variables set, or with None removed, before anything is loaded.
        modules: loaded there at once.
    """

    def __init__(self, environment: Mapping[str, str | None], modules: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        given = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ganeum.doctor.measured.fork_server", str(theirs.fileno()), json.dumps(modules)],
                env=_with(given, environment),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is this side's to answer
            )
        self._socket, self._has_forked = ours, False

    def load(self, modules: Sequence[str]) -> None:
        """More modules, for the children to come."""
        self._ask({"do": "load", "modules": list(modules)})

    def fork(self, environment: Mapping[str, str | None], pipe: int, printed: int) -> int:
        """A child, whose process group has its number → that number.

        Args:
            environment: set, or removed, in the child.
            pipe: a file descriptor: its end of a connection to this process.
            printed: a file descriptor, for what it prints.
        """
        pid = int(self._ask({"do": "fork", "environment": dict(environment)}, [pipe, printed])["pid"])
        self._has_forked = True
        return pid

    def end(self, pid: int) -> int:
        """Ends a child with all that it started → its exit status, below 0 the signal that had ended it before."""
        return int(self._ask({"do": "end", "pid": pid})["status"])

    def close(self) -> None:
        """Ends everything."""
        self._socket.close()
        if not self._has_forked:  # it may still load torch, and nobody needs it
            self._process.kill()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, request: Mapping[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        socket.send_fds(self._socket, [json.dumps(request).encode() + b"\n"], descriptors)
        answer = b""
        while not answer.endswith(b"\n"):
            if not (part := self._socket.recv(LONGEST)):
                raise OSError(f"the process that forks others ended with status {self._process.wait()}")
            answer += part
        told: dict[str, Any] = json.loads(answer)
        return told


def _with(variables: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in {**variables, **changes}.items() if value is not None}


# What runs in the server.


def main() -> None:
    """Answers until the socket closes; returns in a child, which is then to serve its pipe."""
    asked = socket.socket(fileno=int(sys.argv[1]))
    load(json.loads(sys.argv[2]))
    _adopt()
    _sweep()
    children: dict[int, tuple[str, int]] = {}
    while line := _request(asked):
        request, descriptors = line
        if request["do"] == "load":
            load(request["modules"])
            answer: dict[str, Any] = {}
        elif request["do"] == "end":
            answer = {"status": _end(request["pid"], children.pop(request["pid"]))}
        else:
            pipe, printed = descriptors
            place = _own_place()
            if not (pid := os.fork()):
                asked.close()
                _become(request["environment"], pipe, printed, place[0])
                return
            children[pid] = place
            answer = {"pid": pid}
        for descriptor in descriptors:
            os.close(descriptor)
        asked.sendall(json.dumps(answer).encode() + b"\n")
    for child, place in children.items():
        _end(child, place)
    _send(signal.SIGKILL, cores.below(os.getpid()))  # what ended up here when its parent ended
    os._exit(0)  # without the farewells of what was loaded, which take seconds


def load(modules: Sequence[str]) -> None:
    """Imports what can be imported; what cannot is the child's to complain about."""
    had = os.environ.get(SAFE)
    os.environ[SAFE] = "1"
    for name in modules:
        with suppress(Exception):
            importlib.import_module(name)
    os.environ.pop(SAFE)
    if had is not None:
        os.environ[SAFE] = had


def _request(asked: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    text, descriptors = b"", list[int]()
    while not text.endswith(b"\n"):
        part, more, _, _ = socket.recv_fds(asked, LONGEST, 2)
        if not part:
            return None
        text, descriptors = text + part, descriptors + list(more)
    return json.loads(text), descriptors


def _become(environment: Mapping[str, str | None], pipe: int, printed: int, place: str) -> None:
    """The child's own session, output and variables, and a directory for the sockets of its loaders."""
    os.setsid()
    process.current_process()._config["tempdir"] = place  # type: ignore[attr-defined]
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    os.close(printed)
    for name, value in environment.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace")  # a line at a time, as a terminal
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace")
    sys.argv = [str(Path(sys.argv[0]).name), str(pipe)]


def _end(pid: int, place: tuple[str, int]) -> int:
    """Ends a child, all that it started, in sessions of their own too, and what lay on a disk for it."""
    started = list(cores.below(pid))
    clearing = {one for one in started if any(name in _command(one) for name in CLEARING)}
    _send(signal.SIGKILL, [pid, *(one for one in started if one not in clearing)])
    try:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        status = 0
    _send(signal.SIGCONT, clearing)
    end = time.monotonic() + CLEARING_S
    while (started := [one for one in started if not _is_gone(one)]) and time.monotonic() < end:
        time.sleep(0.01)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    _send(signal.SIGKILL, clearing)
    shutil.rmtree(place[0], ignore_errors=True)
    os.close(place[1])
    return status


def _own_place() -> tuple[str, int]:
    """A directory for the sockets of a child's loaders, locked as long as this process or the child is there."""
    import fcntl  # not on Windows, where this file is imported, too

    place = tempfile.mkdtemp(prefix=PLACE)
    held = os.open(place, os.O_RDONLY)
    with suppress(OSError):  # some file systems have no locks
        fcntl.flock(held, fcntl.LOCK_SH)
    return place, held


def _sweep() -> None:
    """Directories that nobody uses any more: who was to clear them away was killed."""
    import fcntl

    for place in Path(tempfile.gettempdir()).glob(PLACE + "*"):
        with suppress(OSError):
            held = os.open(place, os.O_RDONLY)
            try:
                if time.time() - place.stat().st_mtime > YOUNG_S:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(place, ignore_errors=True)
            finally:
                os.close(held)


def _send(number: signal.Signals, pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _is_gone(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # it has another parent
        return not _command(pid)


def _command(pid: int) -> bytes:
    """Empty of one that has ended."""
    try:
        return (cores.PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


def _adopt() -> None:
    """On Linux a process whose parent ends becomes this one's child, so that it can be ended."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


if __name__ == "__main__":
    main()
    if len(sys.argv) == 2:  # a child
        from ganeum.doctor.measured.inside import serve

        serve(int(sys.argv[1]))
