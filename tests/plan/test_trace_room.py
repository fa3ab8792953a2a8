"""What a device has room for, held to trying every size; and what is said where nobody looked further."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest

from ganeum import units
from ganeum.config import Config
from ganeum.config.schema import Model, Train
from ganeum.hardware.card import card
from ganeum.hardware.device import Device
from ganeum.plan.execution import Execution
from ganeum.plan.trace.child import Answer, OutOfTime
from ganeum.plan.trace.events import Allocation, Event, Release, Trace
from ganeum.plan.trace.replay import sizes
from ganeum.plan.trace.room import SPARE, Most, Room, largest, longest

KIB = 1024
CARD = card("Small Card: 3GB, bf16 30 TFLOPS, bandwidth 300 GB/s")
RUN = Config(
    name="small", model=Model(n_layer=1, n_head=1, n_embd=16, vocab_size=64), train=Train(batch_size=8, max_iters=1)
)
WAY = Execution()


@dataclass
class Traced:
    """In place of the tracing process: steps of layers that keep ``kept`` KiB a sequence and use ``used`` in passing,
    over ``fixed`` KiB. ``traces``: for so many there is time."""

    kept: list[int]
    used: list[int]
    fixed: int = 4096
    traces: int = 1000
    expandable: bool = False
    asked: list[int] = field(default_factory=list)

    def in_time(self) -> float:
        """For as many traces as there are."""
        return 1.0

    def run(self, config: Config, device: Device, way: Execution, **_: Any) -> Answer:
        """Two steps of the forward and the backward pass."""
        if len(self.asked) == self.traces:
            raise OutOfTime("it took longer than 120 s")
        size = way.micro_batch_size * way.length // 64
        self.asked.append(size)
        keys = count()
        events: list[Event] = [Allocation(next(keys), self.fixed * KIB, "aten::empty", "build")]
        for _step in range(2):
            held = []
            for kept, used in zip(self.kept, self.used, strict=True):
                passing, lasting = next(keys), next(keys)
                events.append(Allocation(passing, used * size * KIB, "aten::mm", "forward"))
                events.append(Allocation(lasting, kept * size * KIB, "aten::mm", "forward"))
                events.append(Release(passing))
                held.append((lasting, used))
            for lasting, used in reversed(held):
                passing = next(keys)
                events.append(Allocation(passing, 2 * used * size * KIB, "aten::mm", "backward"))
                events += [Release(lasting), Release(passing)]
        return Answer(Trace(tuple(events)), expandable=self.expandable)


def with_room(size: float) -> Device:
    """``CARD`` with so many bytes free for tensors."""
    return replace(CARD, usable_gib=size / units.GIB / (1 - SPARE))


def of(size: int) -> Execution:
    return replace(WAY, micro_batch_size=size, length=64)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets nothing for the allocator."""
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("expandable", [False, True])
def test_the_most_at_once_is_what_trying_every_size_gives(*, expandable: bool) -> None:
    """Of random steps, wherever the search begins: a trace at what is found goes through, with the allocator's retries
    where it needs them, and the next does not; few traces are needed for it."""
    draw, retried = random.Random(7), 0
    for _ in range(12):
        layers = draw.randint(2, 6)
        kept, used = ([draw.randint(100, 3000) for _ in range(layers)] for _ in range(2))
        child = Traced(kept, used, expandable=expandable)
        every = Room.of(CARD, child.run(RUN, CARD, WAY))
        device = with_room(every.peaks(sizes(child.run(RUN, CARD, of(draw.randint(3, 60))).trace))[1] * 0.97)
        room = Room.of(device, child.run(RUN, device, WAY))
        child.asked.clear()
        found = largest(child, RUN, device, of(1), draw.randint(1, 100), 1000)  # type: ignore[arg-type]
        assert len(child.asked) <= 9
        assert found.size in child.asked
        assert found.beyond == ("traced" if found.size + 1 in child.asked else "predicted")
        events = {size: sizes(child.run(RUN, device, of(size)).trace) for size in (found.size, found.size + 1)}
        assert [True, False] == [room.holds(one) for one in events.values()]
        retried += room.peaks(events[found.size])[1] > room.free
    assert retried or expandable


def test_no_more_is_looked_for_than_is_enough() -> None:
    """One trace shows that so many fit; that more may is said."""
    child = Traced([100], [10])
    assert Most(48, "enough") == largest(child, RUN, CARD, of(1), 60_000, 48)  # type: ignore[arg-type]
    assert child.asked == [48]
    assert Most(48, "enough").at_least
    assert not Most(48, "predicted").at_least


def test_a_search_ends_with_its_time() -> None:
    """What was traced until then stands, as the least; before the first trace there is nothing to say."""
    device = with_room(64 * units.GIB / 1024)
    whole = largest(Traced([700], [90]), RUN, device, of(1), 20, 1000)  # type: ignore[arg-type]
    for traces in (1, 2):
        child = Traced([700], [90], traces=traces)
        found = largest(child, RUN, device, of(1), 20, 1000)  # type: ignore[arg-type]
        assert found == Most(max(size for size in (0, *child.asked) if size <= whole.size), "out of time")
    with pytest.raises(OutOfTime):
        largest(Traced([700], [90], traces=0), RUN, device, of(1), 20, 1000)  # type: ignore[arg-type]
    cut = longest(Traced([700], [90], traces=3), RUN, device, of(4))  # type: ignore[arg-type]
    assert cut.beyond == "out of time"
    every = longest(Traced([700], [90]), RUN, device, of(4))  # type: ignore[arg-type]
    assert every.beyond == "traced"
    assert cut.size <= every.size


def test_a_process_may_have_a_share_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """``per_process_memory_fraction`` is a limit as that of the memory that is free, whichever is less."""
    child = Traced([700], [90])
    all_of_it = largest(child, RUN, CARD, of(1), 1000, 10_000).size  # type: ignore[arg-type]
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "per_process_memory_fraction:0.25")
    room = Room.of(CARD, child.run(RUN, CARD, WAY))
    assert round(0.25 * CARD.memory_gib * units.GIB) == pytest.approx(room.limit, abs=1) == room.free
    quarter = largest(child, RUN, CARD, of(1), 1000, 10_000).size  # type: ignore[arg-type]
    assert 0.2 * all_of_it < quarter < 0.4 * all_of_it
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "per_process_memory_fraction:0.99")
    assert Room.of(CARD, child.run(RUN, CARD, WAY)).free < 0.99 * CARD.memory_gib * units.GIB
