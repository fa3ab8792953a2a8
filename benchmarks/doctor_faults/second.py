"""Faults that were written after the doctor was finished, by someone who had read none of its measuring code.

What people do in programs of their own: tutorials copied into the wrong place, a bug in the order of two lines, a
switch set for a hunt long over. Their right answers were fixed together with them, from the catalogue of causes alone;
``effect`` shows that each does what it is said to do.
"""

from __future__ import annotations

import ctypes
import http.client
import itertools
import logging
import math
import os
import random
import tempfile
import threading
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from doctor_faults.fault import fault
from doctor_faults.habits import behind
from doctor_faults.organs import loss_of
from doctor_faults.shelves import LOADER
from doctor_faults.subjects import SUBJECTS, Batch, Parts, Row, like_lengths

Step = Callable[[Batch], Any]
STREAMS = ("plain", "windows")


def logits_of(model: nn.Module, batch: Batch) -> torch.Tensor:
    """B, T, V of a subject that reads windows."""
    out = model(batch["input_ids"])
    return out if isinstance(out, torch.Tensor) else out.logits


def blocks_of(model: nn.Module) -> Any:
    """The blocks of a subject that reads windows."""
    return model.blocks if hasattr(model, "blocks") else model.transformer.h  # type: ignore[union-attr]


# Time, in the step


@fault(
    "the loss computed place by place", "speed", ("python_loop", "logits", "unexplained_time", "not_compiled"), STREAMS
)
def bead_by_bead(parts: Parts) -> None:
    """A loop over the places of a row, as in lessons on recurrent networks: each has a cross-entropy of its own."""

    def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
        logits, labels, total = logits_of(model, batch), batch["labels"], torch.zeros(())
        for place in range(labels.shape[1] - 1):
            total = total + functional.cross_entropy(logits[:, place], labels[:, place + 1])
        return total / (labels.shape[1] - 1)

    parts.loss = loss


@fault(
    "a table of positions computed anew in every forward pass",
    "speed",
    ("python_loop", "unexplained_time", "not_compiled"),
    ("plain",),
)
def surveyor(parts: Parts) -> None:
    """Sines and cosines, number by number, in forward() where they belong into __init__()."""

    class Waves(nn.Module):
        def forward(self, places: torch.Tensor) -> torch.Tensor:
            table = torch.zeros(len(places), parts.width)
            for place in range(len(places)):
                for number in range(0, parts.width, 2):
                    angle = place / 10000 ** (number / parts.width)
                    table[place, number], table[place, number + 1] = math.sin(angle), math.cos(angle)
            return table

    parts.model.append(lambda model: setattr(model, "places", Waves()))


@fault("everything computed again inside of the optimizer's step", "speed", ("extra_forwards",), SUBJECTS)
def measure_twice(parts: Parts) -> None:
    """loss and backward(), then optimizer.step(closure), where the closure does both again."""
    inner = loss_of(parts)

    def wrap(step: Step, model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
        def taken(batch: Batch) -> torch.Tensor:
            def closure() -> torch.Tensor:
                optimizer.zero_grad()
                loss = inner(model, batch)
                loss.backward()
                return loss

            loss = closure().detach()
            optimizer.step(closure)  # type: ignore[arg-type]
            return loss

        return taken

    parts.step.append(wrap)


# Time, around the step


@fault("lines for a log that is off", "speed", ("beside_learning", "sync", "debug_mode", "too_often"), STREAMS)
def unread_letters(parts: Parts) -> None:
    """logger.debug(f"… {tensor}") in every block: written out, and thrown away since the level is higher."""
    log = logging.getLogger("training")
    log.setLevel(logging.WARNING)

    def change(model: nn.Module) -> None:
        for number, block in enumerate(blocks_of(model)):
            inner = block.forward

            def forward(x: torch.Tensor, *more: Any, inner: Any = inner, number: int = number, **named: Any) -> Any:
                y = inner(x, *more, **named)
                log.debug(f"block {number}: {x} becomes {y}")
                return y

            block.forward = forward

    parts.model.append(change)


@fault("a metric computed in Python in every step", "speed", ("beside_learning", "too_often", "sync"), STREAMS)
def spelling_bee(parts: Parts) -> None:
    """The edit distance between each row and what the model says."""

    def distance(one: list[int], other: list[int]) -> int:
        above = list(range(len(other) + 1))
        for row, left in enumerate(one, 1):
            line = [row]
            for column, right in enumerate(other, 1):
                line.append(min(above[column] + 1, line[-1] + 1, above[column - 1] + (left != right)))
            above = line
        return above[-1]

    def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
        logits, wanted = logits_of(model, batch)[:, :-1], batch["labels"][:, 1:]
        said = logits.argmax(-1).tolist()
        sum(distance(one, other) for one, other in zip(said, wanted.tolist(), strict=True))
        return functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())

    parts.loss = loss


class _Desk(BaseHTTPRequestHandler):
    """A tracker of experiments that takes 6 ms for an entry."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.006)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Silent."""


@fault(
    "every loss sent to a tracker, and its answer waited for",
    "speed",
    ("beside_learning", "too_often", "sync"),
    SUBJECTS,
)
def dutiful_clerk(parts: Parts) -> None:
    """An HTTP request after each step."""
    lines: dict[int, http.client.HTTPConnection] = {}

    def line() -> http.client.HTTPConnection:
        if os.getpid() not in lines:
            desk = HTTPServer(("127.0.0.1", 0), _Desk)
            threading.Thread(target=desk.serve_forever, daemon=True).start()
            lines[os.getpid()] = http.client.HTTPConnection("127.0.0.1", desk.server_port)
        return lines[os.getpid()]

    def follow(batch: Batch, loss: Any) -> None:
        connection = line()
        connection.request("POST", "/metrics", body=f'{{"loss": {float(loss)}}}')
        connection.getresponse().read()

    behind(parts, lambda model, optimizer: follow)


@fault("memory handed back to the system after every step", "speed", ("memory_emptied", "page_faults"), SUBJECTS)
def returned_bottles(parts: Parts) -> None:
    """malloc_trim(0), against a leak that was never there."""
    give_back = ctypes.CDLL("libc.so.6").malloc_trim
    behind(parts, lambda model, optimizer: lambda batch, loss: give_back(0) and None)


@fault("a trace of every allocation of Python's", "speed", ("debug_mode",), SUBJECTS)
def border_guard(parts: Parts) -> None:
    """tracemalloc.start(25), left over from a hunt for a leak."""
    parts.model.append(lambda model: tracemalloc.start(25))


@fault(
    "wide instructions forbidden by the environment",
    "speed",
    ("slow_switch",),
    SUBJECTS,
    {"ATEN_CPU_CAPABILITY": "default"},
)
def narrow_gate(parts: Parts) -> None:
    """ATEN_CPU_CAPABILITY=default, said outside, for figures that are the same on every machine."""


# Time, before the step


@fault("each row looked for from the start of its file", "speed", LOADER, ("documents", "plain", "windows"))
def from_page_one(parts: Parts) -> None:
    """A text file of all rows is read line by line until the one that is wanted comes."""
    place = Path(tempfile.gettempdir()) / f"doctor-faults-{parts.subject}-{parts.seed}.txt"
    with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False) as file:
        for row in itertools.islice(itertools.cycle(parts.rows), 12000):
            file.write(" ".join(map(str, row["input_ids"])) + "\n")
    Path(file.name).replace(place)  # several processes may build the training at once

    def order(rows: list[Row], at_once: int, draw: random.Random) -> Iterator[list[Row]]:
        number = {id(row): line for line, row in enumerate(rows)}
        for batch in like_lengths(rows, at_once, draw):
            found = []
            for row in batch:
                wanted = number[id(row)] + draw.randrange(12000 // len(rows)) * len(rows)
                with place.open() as file:
                    ids = [int(word) for word in next(itertools.islice(file, wanted, None)).split()]
                found.append({"input_ids": ids, "labels": ids})
            yield found

    parts.order = order


@fault("the loader started anew for every batch", "speed", ("loader", "worker_start"), SUBJECTS)
def new_broom(parts: Parts) -> None:
    """next(iter(loader)) in the loop, of a DataLoader with a worker."""

    class Anew:
        def __init__(self, batches: Iterable[Batch]) -> None:
            self.shelf = list(batches)

        def __iter__(self) -> Iterator[Batch]:
            loader = DataLoader(self.shelf, batch_size=None, shuffle=True, num_workers=1)  # type: ignore[arg-type]
            for _ in self.shelf:
                yield next(iter(loader))

    parts.source.append(Anew)


@fault("a thread that waits by looking all the time", "speed", ("loader", "oversubscription"), SUBJECTS)
def are_we_there_yet(parts: Parts) -> None:
    """A prefetcher that asks without end whether there is room."""

    class Impatient:
        def __init__(self, batches: Iterable[Batch]) -> None:
            self.batches = batches

        def __iter__(self) -> Iterator[Batch]:
            shelf: deque[Batch | None] = deque()
            wanted = True

            def fill() -> None:
                for batch in itertools.chain(self.batches, [None]):
                    while len(shelf) >= 4 and wanted:
                        pass
                    shelf.append(batch)
                    if not wanted:
                        return

            threading.Thread(target=fill, daemon=True).start()
            try:
                while True:
                    while not shelf:
                        time.sleep(0)
                    batch = shelf.popleft()
                    if batch is None:
                        return
                    yield batch
            finally:
                wanted = False

    parts.source.append(Impatient)
