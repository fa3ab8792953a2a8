"""torch's own record of a GPU's memory (``torch.cuda.memory._snapshot``), read: what lay there at the peak, and who
asked for it; loads no torch and runs nothing of what it reads.

The format is torch's (torch/cuda/memory.py, ``_snapshot``; c10/cuda/CUDACachingAllocator.h, ``TraceEntry``): segments
with their blocks as they are now, and for each device the events until then, oldest first. What was there at an earlier
moment follows from both, backwards. Events have the bytes that were asked for, so the peak is of these; blocks are
rounded up (to 512 bytes, and by up to 1 MiB where what is left over is not worth a block).
"""

from __future__ import annotations

import io
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ganeum.errors import DataError

LARGEST_BYTES = 2 * 2**30
LISTED = 24
INSIDE = (
    "torch/",
    "/torch",
    "site-packages/torch",
    "??",
    "<frozen",
    "<string>",
)  # of file names that are not the user's


@dataclass(frozen=True)
class Snapshot:
    """One device's memory, in bytes.

    Attributes:
        allocated, reserved: now. idle: reserved in whole segments with nothing in them; torn: free pieces between
            tensors, ``largest_piece`` the largest.
        peak_requested: the most that was asked for at a time, as far back as the events go.
        complete: whether they go back to before the peak.
        at_peak: ``file.py:12 function`` → bytes, the largest first.
        out_of_memory: how often memory ran out in the events.
    """

    allocated: int
    reserved: int
    idle: int
    torn: int
    largest_piece: int
    peak_requested: int
    complete: bool
    at_peak: Mapping[str, int] = field(default_factory=dict)
    out_of_memory: int = 0

    @property
    def fragmentation(self) -> float:
        """Share of what is reserved that lies in pieces between tensors."""
        return self.torn / self.reserved if self.reserved else 0.0


class _PlainOnly(pickle.Unpickler):
    """Whatever a pickle names is refused: only containers, text and numbers come out of it."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}; a snapshot holds containers, text and numbers")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside itself")


def load(path: Path, device: int = 0) -> Snapshot:
    """What ``torch.cuda.memory._dump_snapshot`` wrote of one device.

    Raises:
        DataError: it is none.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ValueError(f"it is larger than {LARGEST_BYTES:,} bytes")
        found = _PlainOnly(io.BytesIO(path.read_bytes())).load()
        if not isinstance(found, dict) or "segments" not in found:
            raise ValueError("there are no segments in it")
        return read(found, device)
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(
            "this is no memory snapshot of torch's",
            where=str(path),
            why=f"{type(error).__name__}: {error}",
            suggestion="torch.cuda.memory._record_memory_history(); some steps; "
            "torch.cuda.memory._dump_snapshot('memory.pickle')",
        ) from error


def read(snapshot: Mapping[str, Any], device: int = 0) -> Snapshot:
    """What it says of one device."""
    allocated = reserved = idle = torn = largest = 0
    live: dict[int, tuple[int, str]] = {}
    for segment in snapshot["segments"]:
        if segment.get("device", 0) != device:
            continue
        reserved += segment["total_size"]
        given = 0
        free: list[int] = []
        address = segment.get("address", 0)
        for block in segment["blocks"]:
            at = block.get("address", address)
            address = at + block["size"]
            if block["state"] == "inactive":
                free.append(block["size"])
            else:
                given += block["size"]
                live[at] = block.get("requested_size") or block["size"], _who(block.get("frames") or _history(block))
        allocated += given
        if given:
            torn += sum(free)
            largest = max([largest, *free])
        else:
            idle += segment["total_size"]
    traces = snapshot.get("device_traces") or []
    events: Sequence[Mapping[str, Any]] = traces[device] if device < len(traces) else []
    peak, at_peak, complete = _backwards(live, events)
    return Snapshot(
        allocated,
        reserved,
        idle,
        torn,
        largest,
        peak,
        complete,
        at_peak,
        sum(event.get("action") == "oom" for event in events),
    )


def _backwards(
    live: dict[int, tuple[int, str]], events: Sequence[Mapping[str, Any]]
) -> tuple[int, dict[str, int], bool]:
    """The fullest moment: from what is there now each event is undone, the last one first."""
    now = dict(live)
    total = sum(size for size, _ in now.values())
    peak, at = total, len(events)
    for number in range(len(events) - 1, -1, -1):
        total += _undone(events[number], now)
        if total > peak:
            peak, at = total, number
    complete = not now or (bool(events) and at > 0)
    then = dict(live)
    for number in range(len(events) - 1, at - 1, -1):
        _undone(events[number], then)
    sizes: Counter[str] = Counter()
    for size, who in then.values():
        sizes[who] += size
    return peak, dict(sizes.most_common(LISTED)), complete


def _undone(event: Mapping[str, Any], live: dict[int, tuple[int, str]]) -> int:
    """Takes an event back → how many bytes more were there before it."""
    action, at, size = event.get("action"), event.get("addr", 0), event.get("size", 0)
    if action == "alloc":
        found = live.pop(at, None)
        return -(found[0] if found else size)
    if action == "free_completed":
        live[at] = size, _who(event.get("frames") or ())
        return int(size)
    return 0


def _history(block: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Where frames were kept until torch 2.1."""
    history = block.get("history") or []
    return history[0].get("frames") or () if history else ()


def _who(frames: Sequence[Mapping[str, Any]]) -> str:
    """The innermost frame of the user's own code; torch's, where there is none; both as ``file.py:12 function``."""
    own = next(_own(frames), None) or (frames[0] if frames else None)
    if own is None:
        return "not recorded"
    return f"{Path(own.get('filename') or '?').name}:{own.get('line', 0)} {own.get('name', '')}".rstrip()


def _own(frames: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for frame in frames:
        name = str(frame.get("filename") or "??")
        if not any(sign in name for sign in INSIDE) and name.endswith(".py"):
            yield frame
