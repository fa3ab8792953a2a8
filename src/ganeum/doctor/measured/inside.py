"""What runs in a worker: a training is built, changed, stepped and timed there, as the other side of a pipe asks."""

from __future__ import annotations

import bdb
import faulthandler
import gc
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganeum.doctor.measured import cores, generators, tensors
from ganeum.doctor.measured.parts import Parts
from ganeum.doctor.measured.subject import FORM, WHERE, is_own
from ganeum.doctor.measured.training import Block, Training
from ganeum.errors import ConfigError, GaneumError

FORKABLE = ("torch", "transformers", "numpy", "ganeum", "safetensors", "tokenizers", "sympy", "huggingface_hub")


def serve(pipe: int) -> None:
    """Answers until the other side is gone, then ends the process without any farewells of libraries."""
    connection, inside = Connection(pipe), Inside()
    if WHERE is not None:
        faulthandler.register(WHERE, file=2, all_threads=False)
    try:
        while True:
            name, arguments = connection.recv()
            try:
                answer = ("done", getattr(inside, name)(**arguments))
            except BaseException as error:  # also of sys.exit() in somebody's step
                traceback.print_exc()
                told, suggestion = _told(error)
                answer = ("failed", {"why": told, "memory": _is_memory(error), "suggestion": suggestion})
            with suppress(Exception):
                sys.stdout.flush()
            connection.send(answer)
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)


class Inside:
    """A training, and its batches wherever they stand. The public methods are what can be asked for."""

    training: Training
    _batches: Iterator[Any]
    _back: Sequence[Callable[[], None]] = ()  # sets the batches' own random generators back
    _quickest = float("inf")  # seconds of a step
    _started = 0.0  # seconds, of the first steps beyond that

    def build(self, what: Mapping[str, Any]) -> None:
        """The config's training, or what the function gives, with acts done to it."""
        generators.seed()
        if "config" in what:
            from ganeum.doctor.measured import ours

            training: Training = ours.training(what["config"])
        else:
            training = _foreign(Path(what["file"]), what["function"])
        self._back = generators.kept(training.batches)  # acts may look at some of them
        for name in what["acts"]:
            from ganeum.doctor.measured import acts

            training = getattr(acts, name)(training)  # raises NotApplicable where there is nothing to take away
        self.training = training
        self.device = next((p.device for p in training.model.parameters()), torch.device("cpu"))
        self.rewind()

    def modules(self) -> list[str]:
        """Names of those loaded that can be loaded before a fork as well."""
        return sorted(name for name in sys.modules if name.split(".")[0] in FORKABLE and name != __name__)

    def facts(self) -> Mapping[str, Any]:
        """What remedies are chosen by."""
        from ganeum.doctor.measured import facts

        found: Mapping[str, Any] = facts.of(self.training)
        named = self.training.tokens is not None
        return {**found, "counted": "tokens" if named else counted(next(self._batches, None))}

    def examine(self, batches: int = 4) -> list[Any]:
        """What is wrong with what it learns."""
        from ganeum.doctor.examine import examine

        found: list[Any] = examine(self.training, batches)
        return found

    def call(self, module: str, function: str, arguments: Mapping[str, Any]) -> Any:
        """A function of this package, in a process that may load torch."""
        from importlib import import_module

        return getattr(import_module(module), function)(**arguments)

    def rewind(self) -> None:
        """Batches from their beginning, in an order that any other worker draws, too."""
        self._batches = iter(())  # the old one's processes end before new ones start
        generators.seed()
        for back in self._back:
            back()
        self._batches = iter(self.training.batches)

    def warm(self, seconds: float, least: int) -> float:
        """Steps that are not counted: ``least``, and then until ``seconds`` have passed → seconds of the quickest.

        Of steps that are longer than that two are enough, and none where some were taken before.
        """
        end, taken = time.perf_counter() + seconds, 0
        if seconds < self._quickest < float("inf"):
            return self._quickest
        is_first, spent = self._quickest == float("inf"), 0.0
        while taken < least or (time.perf_counter() < end and taken < 10_000):
            last = self.block(1).seconds
            self._quickest, taken, spent = min(self._quickest, last), taken + 1, spent + last
            if taken > 1 and self._quickest > seconds:
                break
        if is_first:
            self._started = max(0.0, spent - taken * self._quickest)
        return self._quickest

    def block(self, steps: int) -> Block:
        """Some steps."""
        self._wait()
        tokens, data, apart = list[Any](), 0.0, 0.0
        clock, step = time.perf_counter, self.training.step
        children = cores.of_children()
        waited, computed = cores.waited(), time.process_time()
        start = last = clock()
        for _ in range(steps):
            batch = self._next()
            fetched = clock()
            tokens.append(self._tokens(batch))  # before the step, which may take the labels away
            counted = clock()
            step(batch)
            del batch
            data, apart, last = data + (fetched - last), apart + (counted - fetched), clock()
        self._wait()
        seconds = clock() - start - apart
        computed = time.process_time() - computed
        waited = cores.difference(waited, cores.waited())
        children = cores.difference(children, cores.of_children())
        return Block(
            steps=steps,
            seconds=seconds,
            tokens=sum(int(count) for count in tokens),
            phases={"data": data},
            computed=None if children is None else computed + children,
            waited=waited,
        )

    def watch(self, steps: int) -> Block:
        """Some steps, each of them timed, the device waited for after each."""
        blocks, collections = list[Block](), list[float]()
        with _collecting() as seconds:
            for _ in range(steps):
                before = sum(seconds)
                blocks.append(self.block(1))
                collections.append(sum(seconds) - before)
        return Block(
            steps=steps,
            seconds=sum(block.seconds for block in blocks),
            tokens=sum(block.tokens for block in blocks),
            times=tuple(block.seconds if block.own is None else block.own for block in blocks),
            counts=tuple(block.tokens for block in blocks),
            waits=tuple(block.phases["data"] for block in blocks),
            collections=tuple(collections),
        )

    def phases(self, steps: int) -> Block:
        """The same with the seconds of its parts, the device waited for at each."""
        parts, tokens, clock = Parts(self.training, self._wait), list[Any](), time.perf_counter
        start, apart, times = clock(), 0.0, list[float]()
        with parts:
            for _ in range(steps):
                began = clock()
                with parts.part("data"):
                    batch = self._next()
                counting = clock()
                tokens.append(self._tokens(batch))
                counted = clock()
                if self.training.timed is not None:
                    parts.add(self.training.timed(batch))
                else:
                    self.training.step(batch)
                self._wait()
                apart += counted - counting
                times.append(clock() - began - (counted - counting))
        seconds = clock() - start - apart
        return Block(steps, seconds, sum(int(c) for c in tokens), parts.of(seconds), times=tuple(times))

    def limit(self, steps: int = 2) -> dict[str, Any]:
        """What the device could do at the best with steps like these: :func:`ganeum.doctor.measured.limit.of`, and
        ``tokens_per_second`` of it."""
        from ganeum.doctor.measured import limit

        self.rewind()
        batches = [self._next() for _ in range(steps)]
        tokens = sum(int(self._tokens(batch)) for batch in batches) / steps
        found = limit.of(self.training, batches)
        return found | {"tokens_per_second": tokens / found["seconds"] if found["seconds"] else None}

    def start_s(self) -> float:
        """Seconds that its first steps took beyond what its quickest one takes."""
        return self._started

    def peak(self) -> dict[str, float]:
        """GiB."""
        unit = 1 if sys.platform == "darwin" else 1024
        device = getattr(self, "device", torch.device("cpu"))
        peak = {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30}
        if device.type == "cuda":
            peak["allocated"] = torch.cuda.max_memory_allocated(device) / 2**30
            peak["reserved"] = torch.cuda.max_memory_reserved(device) / 2**30
        return peak

    def _next(self) -> Any:
        try:
            return next(self._batches)
        except StopIteration:
            self._batches = iter(self.training.batches)
        try:
            return next(self._batches)
        except StopIteration:
            raise ConfigError(
                "its batches ended and cannot be iterated anew",
                why="a measurement takes more steps than there are batches",
                suggestion="Training(batches=…): a DataLoader, a list, or an object whose __iter__ begins anew",
            ) from None

    def _tokens(self, batch: Any) -> Any:
        count = self.training.tokens
        return tokens_of(batch) if count is None else count(batch)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


@contextmanager
def _collecting() -> Iterator[list[float]]:
    """Seconds of each time that Python looks for cycles by itself, having enough objects; 0 where it is asked to."""
    seconds: list[float] = []
    began = 0.0

    def note(phase: str, _: Mapping[str, int]) -> None:
        nonlocal began
        if phase == "start":
            by_itself = gc.isenabled() and gc.get_count()[0] >= gc.get_threshold()[0]
            began = time.perf_counter() if by_itself else float("inf")
        else:
            seconds.append(max(0.0, time.perf_counter() - began))

    gc.callbacks.append(note)
    try:
        yield seconds
    finally:
        gc.callbacks.remove(note)


def tokens_of(batch: Any) -> int | Tensor:
    """Tokens of a batch that carry loss: labels that are not −100, else ids that are not masked, else rows; () where
    tensors."""
    found = tensors.labels(batch)
    if found is None:
        found = tensors.ids(batch)
        if found is not None and (mask := tensors.mask(batch)) is not None:
            return (mask != 0).sum()
    if found is not None and not found.is_floating_point():
        return (found != tensors.IGNORED).sum()
    first = next((tensor for _, tensor in tensors.each(batch)), None)
    return len(first) if first is not None and first.dim() else 1


def counted(batch: Any) -> str:
    """What :func:`tokens_of` counts: ``tokens``, ``rows``, of pictures and where a row has one label, or ``labels``."""
    labels, ids = tensors.labels(batch), tensors.ids(batch)
    if labels is None or labels.is_floating_point():
        return "tokens" if labels is None and ids is not None else "rows"
    if labels.dim() == 2 or (ids is not None and ids.numel() == labels.numel()):
        return "tokens"
    return "rows" if labels.dim() < 2 else "labels"


def _foreign(file: Path, function: str) -> Training:
    from ganeum.plan.trace.script import imported

    sys.argv = [str(file)]  # as if it were run: argparse gives its defaults
    given = imported(file, function, FORM)()
    if not isinstance(given, Training):
        wrong, wanted = f"{function}() gives {type(given).__name__}", "a ganeum.doctor.Training is expected"
    elif not isinstance(given.model, torch.nn.Module):
        wrong, wanted = f"Training(model={type(given.model).__name__})", "a torch.nn.Module is expected"
    elif not callable(given.step):
        wrong, wanted = f"Training(step={type(given.step).__name__})", "a function of a batch is expected"
    elif not hasattr(given.batches, "__iter__") and not hasattr(given.batches, "__getitem__"):
        wrong, wanted = f"Training(batches={type(given.batches).__name__})", "something to iterate is expected"
    elif not any(parameter.requires_grad for parameter in given.model.parameters()):
        wrong, wanted = "its model has no parameter that is trained", "one with requires_grad is expected"
    elif any(parameter.is_meta for parameter in given.model.parameters()):
        wrong, wanted = "its model lies on the device 'meta'", "weights with values are expected"
    elif isinstance(given.batches, Sized) and not _length(given.batches):
        wrong, wanted = "its batches are empty", "one at least is expected"
    else:
        return given
    raise ConfigError(f"{wrong}, where {wanted}", where=str(file), suggestion=FORM)


def _length(batches: Sized) -> int:
    try:
        return len(batches)
    except TypeError:  # a loader of a stream
        return 1


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _told(error: BaseException) -> tuple[str, str]:
    """One line, with the place in the user's file that it came from; and what to try."""
    if isinstance(error, GaneumError):
        return error.what + (f" ({error.where})" if error.where else ""), error.suggestion or ""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if is_own(frame.filename)] or frames[-1:]
    place = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""
    if isinstance(error, StopIteration):
        return f"its batches are empty, or its step asks for one more than there are{place}", ""
    if isinstance(error, SystemExit):
        return f"it ended itself: sys.exit({'' if error.code is None else repr(error.code)}){place}", ""
    message = (str(error).strip().splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: {message}{place}", _suggested(error)


def _suggested(error: BaseException) -> str:
    """What to try, of errors that many meet."""
    if _is_memory(error):
        return "less at once; `ganeum doctor memory` says what a step needs, and for what"
    if isinstance(error, (EOFError, bdb.BdbQuit)):
        return "without input() and breakpoint(): nobody answers a worker"
    if "CUDA" in str(error) and not torch.cuda.is_available():
        return "this torch finds no GPU: `ganeum gpus`; or a device that is there"
    return ""
