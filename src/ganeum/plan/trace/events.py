"""What a traced step asks of the allocator, in order: allocations and releases. Loads no torch.

A trace is made where torch is (a child process, see ``child.py``) and read where it need not be, so it goes to JSON
and back: each word once in a table, each event a row of numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

Kind = Literal["weights", "gradients", "optimizer", "activations", "logits", "workspace", "inputs", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FORMAT = 2  # of the JSON


@dataclass(frozen=True)
class Allocation:
    """A storage comes into being.

    Attributes:
        key: its number; no other allocation of the trace has it.
        bytes: as asked for; what the allocator makes of it is the replay's.
        operation: what asked, in torch's words: ``aten::mm``.
        phase: ``build``, ``batch``, ``forward``, ``backward``, ``update``, ``evaluation``, ``inference``,
            ``generation``.
        layer: the path of the module that was at work, ``blocks.3.attention``; empty outside of all of them.
        kind: what it is for.
        source: ``file.py:123``, the line that asked, of the first file outside of torch; empty where there is none.
    """

    key: int
    bytes: int
    operation: str
    phase: str = ""
    layer: str = ""
    kind: Kind = "other"
    source: str = ""


@dataclass(frozen=True)
class Release:
    """The storage of the allocation with this key is given back."""

    key: int


Event = Allocation | Release


@dataclass(frozen=True)
class Loop:
    """A loss that goes around its rows chunk by chunk.

    Attributes:
        starts: for each round the number of events before it, and the number before what follows the last one.
        rows: of all rounds together.
        chunk: rows of each round but the last, which has what remains.
    """

    starts: tuple[int, ...]
    rows: int
    chunk: int


@dataclass(frozen=True)
class Trace:
    """The events of building a model and of its first steps.

    Attributes:
        events: all of them in order.
        steps: for each step, the number of events before it. What comes before the first is the build; the last is
            like all that follow, since the optimizer has its state by then.
        device: ``cuda`` or ``cpu``: whose operations were traced.
        settings: what the trace was made with and decided: torch's version, attention kernels, capability.
        uncertain: what it had to assume, as sentences.
        loops: of losses, in order.
    """

    events: tuple[Event, ...]
    steps: tuple[int, ...] = (0,)
    device: str = "cuda"
    settings: dict[str, Any] = field(default_factory=dict)
    uncertain: tuple[str, ...] = ()
    loops: tuple[Loop, ...] = ()

    def to_json(self) -> str:
        """One line; :meth:`from_json` makes the same trace of it."""
        words: dict[str, int] = {}

        def number(word: str) -> int:
            return words.setdefault(word, len(words))

        rows = [
            [e.key]
            if isinstance(e, Release)
            else [e.key, e.bytes, *(number(w) for w in (e.operation, e.phase, e.layer, e.kind, e.source))]
            for e in self.events
        ]
        whole = {
            "format": FORMAT,
            "words": list(words),
            "events": rows,
            "steps": self.steps,
            "device": self.device,
            "settings": self.settings,
            "uncertain": self.uncertain,
            "loops": [[loop.starts, loop.rows, loop.chunk] for loop in self.loops],
        }
        return json.dumps(whole, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Trace:
        """Raises: ValueError where it is no trace, or one of another format."""
        try:
            whole = json.loads(text)
            if whole["format"] != FORMAT:
                raise ValueError(f"a trace of format {whole['format']}, and this reads format {FORMAT}")
            words = whole["words"]
            events = tuple(
                Release(row[0]) if len(row) == 1 else Allocation(row[0], row[1], *(words[i] for i in row[2:]))
                for row in whole["events"]
            )
            loops = tuple(Loop(tuple(starts), rows, chunk) for starts, rows, chunk in whole["loops"])
            said = tuple(whole["uncertain"])
            return cls(events, tuple(whole["steps"]), whole["device"], whole["settings"], said, loops)
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"this is no trace: {error!r}") from error

    def with_kinds(self, kinds: dict[int, Kind]) -> Trace:
        """The same, with the kinds of some keys known better."""
        events = tuple(
            replace(e, kind=kinds[e.key]) if isinstance(e, Allocation) and e.key in kinds else e for e in self.events
        )
        return replace(self, events=events)


def live(events: Iterable[Event]) -> Iterator[int]:
    """Bytes that are asked for and not given back, after each event. A release of what is unknown changes nothing."""
    sizes: dict[int, int] = {}
    total = 0
    for event in events:
        if isinstance(event, Allocation):
            sizes[event.key] = event.bytes
            total += event.bytes
        else:
            total -= sizes.pop(event.key, 0)
        yield total
