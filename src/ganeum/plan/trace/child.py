"""Traces in a process of their own, with a time limit: whatever happens there, the plan goes on here.

Fake CUDA takes the place of tables inside torch (:mod:`ganeum.plan.trace.fake_cuda`), and where a build of torch is
not as expected the process that does so may be ended by it. So the asking side loads no torch; the child does, answers
one request a line, and stays for the next, since loading torch takes longer than most traces.

A version of torch that is not among :data:`KNOWN` takes one small step first; what came of it is remembered.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from ganeum.config import Config
from ganeum.config.schema import Lora
from ganeum.errors import GaneumError
from ganeum.hardware import peaks
from ganeum.hardware.device import Device
from ganeum.plan.execution import Execution
from ganeum.plan.trace import roofline
from ganeum.plan.trace.events import Trace
from ganeum.plan.trace.roofline import Operation

KNOWN = ("2.13",)  # versions of torch that the tests of traces pass with
LIMIT_S = 180.0  # for all traces of one answer: one of mT5-large takes 20 s on one slow core, a compiled model 40
# Not -m, which looks for modules in the current directory first: somebody's types.py there would be taken for Python's.
START = "import sys; sys.path[:] = filter(None, sys.path); from ganeum.plan.trace.child import main; main()"
REMEMBERED = "tracing.json"  # in the cache directory: version of torch → what its self-test said, empty where it passed


class NotTraced(Exception):
    """No trace, and the reason in words, fit to stand behind a colon; ``suggestion``: what to try, if that is known."""

    def __init__(self, reason: str, suggestion: str | None = None) -> None:
        super().__init__(reason)
        self.suggestion = suggestion


class OutOfTime(NotTraced):
    """The time for all traces of one answer is over; what was traced before stands."""


@dataclass(frozen=True)
class Answer:
    """A trace, and what the child knows beside it: ``expandable``: whether a run has expandable segments, ``why``;
    ``operations`` of the step, where they were asked for."""

    trace: Trace
    expandable: bool = False
    why: str = ""
    operations: dict[Operation, float] | None = None


class Child:
    """The tracing process; it starts with the first request and ends with the ``with`` block.

    Args:
        limit_s: seconds for all answers together, from the first request on.
    """

    def __init__(self, limit_s: float = LIMIT_S, python: str = sys.executable) -> None:
        self.limit_s, self.python = limit_s, python
        self._begun: float | None = None
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()
        self._errors: IO[str] | None = None
        self._answers: dict[str, Answer] = {}  # by their requests: the same step gives the same trace

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def in_time(self) -> float:
        """Seconds that are left; for whoever works with the traces on this side.

        Raises:
            OutOfTime: there are none.
        """
        if self._begun is None:
            self._begun = time.monotonic()
        left = self._begun + self.limit_s - time.monotonic()
        if left <= 0:
            raise OutOfTime(self._over())
        return left

    def _over(self) -> str:
        return f"it took longer than {self.limit_s:,.0f} s"

    def run(
        self,
        config: Config,
        device: Device,
        way: Execution,
        *,
        operations: bool = False,
        between: bool = False,
        share: float = 1.0,
    ) -> Answer:
        """The step of a run of ours; ``operations``: with what it computes; ``between``: an evaluation and a sample.

        Args:
            share: of the time that is left; where there is something simpler to trace instead, less than all of it.

        Raises:
            OutOfTime: the time for all answers is over.
            NotTraced: with the reason.
        """
        return self._ask(
            {
                "do": "run",
                "config": config.model_dump_json(),
                "device": asdict(device),
                "way": {**vars(way), "lora": way.lora.model_dump()},
                "operations": operations,
                "between": between,
            },
            share,
        )

    def script(self, file: Path, function: str, device: Device) -> Answer:
        """What ``function()`` in somebody's ``file`` gives: ``build`` and ``step``, as ``predict_memory`` takes them.

        Raises:
            NotTraced: with the reason.
        """
        return self._ask({"do": "script", "file": str(file), "function": function, "device": asdict(device)})

    def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for end in (process.stdin, process.stdout, self._errors):
                if end is not None:
                    with suppress(OSError):
                        end.close()

    def _ask(self, request: Mapping[str, Any], share: float = 1.0) -> Answer:
        if (asked := json.dumps(request)) in self._answers:
            return self._answers[asked]
        limit_s = share * self.in_time()
        if not peaks.torch_version():
            raise NotTraced("torch is not installed, and the step is torch's: pip install torch")
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(asked + "\n")
            process.stdin.flush()
            line = self._lines.get(timeout=limit_s)
        except OSError:
            line = ""
        except queue.Empty:
            self.close()
            if share == 1:
                raise OutOfTime(self._over()) from None
            raise NotTraced(f"it took longer than {limit_s:,.0f} s") from None
        except BaseException:
            self.close()  # an answer to this would be taken for the next one's
            raise
        if not line:
            raise NotTraced(self._ended())
        told = json.loads(line)
        if "reason" in told:
            raise NotTraced(told["reason"], told.get("try"))
        done = roofline.from_json(told["operations"]) if told.get("operations") else None
        answer = Answer(Trace.from_json(told["trace"]), told["expandable"], told["why"], done)
        self._answers[asked] = answer
        return answer

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed with it)
            self._lines = queue.Queue()
            self._process = subprocess.Popen(
                [self.python, "-c", START],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                encoding="utf-8",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": ""},
            )
            assert self._process.stdout is not None
            reader = threading.Thread(target=_pass_on, args=(self._process.stdout, self._lines), daemon=True)
            reader.start()
        return self._process

    def _ended(self) -> str:
        """Why the process is gone, with its last words."""
        assert self._process is not None
        assert self._errors is not None
        status = self._process.wait()
        self._errors.seek(0)
        said = [line for line in self._errors.read().splitlines() if line.strip()]
        self.close()
        how = f"ended with status {status}" if status >= 0 else f"was ended by {_signal(-status)}"
        return f"the tracing process {how}" + (f" ({said[-1].strip()})" if said else "")


def _pass_on(lines: IO[str], to: queue.Queue[str]) -> None:
    """Each line, and an empty one at the end."""
    with suppress(ValueError, OSError):  # closed meanwhile
        for line in lines:
            to.put(line)
    to.put("")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# What runs in the child.


def main() -> None:
    """Answers requests, a line each, until there are no more."""
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    answers, requests = os.fdopen(os.dup(1), "w", encoding="utf-8"), os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(2, 1)  # whatever is printed meanwhile is no answer
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)  # and whatever is read meanwhile is no request
    refused: str | None = None
    tested = False
    for line in requests:
        try:
            if not tested:
                refused, tested = _tested(), True
            if refused:
                raise NotTraced(refused)
            told = DO[(request := json.loads(line))["do"]](request)
        except NotTraced as reason:
            told = {"reason": str(reason)}
        except GaneumError as error:
            told = {"reason": f"{error.what}" + (f" ({error.where})" if error.where else ""), "try": error.suggestion}
        except Exception as error:
            told = {"reason": f"{type(error).__name__}: {_first_line(error)}"}
        answers.write(json.dumps(told) + "\n")
        answers.flush()


def _leave_with(parent: int) -> None:
    """Whoever asked may be killed in the middle of a trace, which nobody waits for then."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def _device(told: Mapping[str, Any]) -> Device:
    capability = told["capability"]
    return Device(**{**told, "capability": None if capability is None else tuple(capability)})


def _run(request: Mapping[str, Any]) -> dict[str, Any]:
    from ganeum.plan.trace.operations import Operations
    from ganeum.plan.trace.step import trace
    from ganeum.step.allocator import choose_expandable_segments

    config, way = Config.model_validate_json(request["config"]), request["way"]
    execution, seen = Execution(**{**way, "lora": Lora(**way["lora"])}), Operations() if request["operations"] else None
    found = trace(config, _device(request["device"]), execution, seen, between=request["between"])
    done = None if seen is None else roofline.to_json(roofline.of_all(seen.counts, execution.accumulation))
    expandable, why = choose_expandable_segments(config.train.expandable_segments, request["device"]["kind"])
    return {"trace": found.to_json(), "expandable": expandable, "why": why, "operations": done}


def _script(request: Mapping[str, Any]) -> dict[str, Any]:
    from ganeum.plan.trace.anybody import trace
    from ganeum.plan.trace.script import load

    sys.argv = [request["file"]]  # as the script itself would see it
    build, step = load(Path(request["file"]), request["function"])
    return {"trace": trace(build, step, _device(request["device"])).to_json(), "expandable": False, "why": ""}


DO: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {"run": _run, "script": _script}


def _tested() -> str:
    """Why this version of torch is not fit; empty where it is."""
    version = peaks.torch_version()
    if ".".join(version.split(".")[:2]) in KNOWN:
        return ""
    remembered = peaks.cache_directory() / REMEMBERED
    try:
        known = json.loads(remembered.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if version not in known:
        _remember(remembered, known | {version: f"torch {version} ended the process that tried it out"})
        try:
            from ganeum.plan.trace.fake_cuda import self_test

            self_test()
            known |= {version: ""}
        except Exception as error:
            known |= {version: f"torch {version} does not trace as expected: {_first_line(error)}"}
        _remember(remembered, known)
    reason: str = known[version]
    return reason


def _remember(file: Path, known: Mapping[str, str]) -> None:
    from ganeum.record.files import write_atomic

    with suppress(OSError):  # then it is asked again the next time
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(known, indent=2) + "\n")
