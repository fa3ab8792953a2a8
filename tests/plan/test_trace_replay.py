"""What the allocator makes of a traced step, on traces made by hand."""

from __future__ import annotations

from itertools import accumulate

import pytest

from ganeum.plan.trace.affine import Unalike, fit, largest
from ganeum.plan.trace.allocator import CachingAllocator
from ganeum.plan.trace.allocator_settings import MIB, Settings
from ganeum.plan.trace.events import Allocation, Event, Kind, Loop, Release, Trace
from ganeum.plan.trace.replay import last_step, like_layers, peaks, replay, sizes


def step(batch: int, *, layers: int = 3, chunk: int = 2, width: int = MIB) -> Trace:
    """Two steps of weights, activations that are kept, chunks of logits, a backward pass and an update."""
    events: list[Event] = []
    key = 0

    def take(size: int, operation: str, phase: str, layer: str = "", kind: Kind = "activations") -> int:
        nonlocal key
        key += 1
        events.append(Allocation(key, size, operation, phase, layer, kind, f"model.py:{len(layer)}"))
        return key

    weights = [take(3 * width, "aten::empty", "build", f"blocks.{n}.mlp", "weights") for n in range(layers)]
    starts, state, loops = [], [], []
    for number in range(2):
        starts.append(len(events))
        kept = [take(batch * width, "aten::mm", "forward", f"blocks.{n}.mlp") for n in range(layers)]
        rounds, before = [], 0
        for first in range(0, batch, chunk):  # what a round leaves goes in the next one
            rows = min(chunk, batch - first)
            rounds.append(len(events))
            logits = take(10 * rows * width, "aten::mm", "forward", "head", "logits")
            nats = take(5 * rows * width, "aten::_softmax", "forward", "", "logits")
            events.extend([Release(logits), *([Release(before)] if before else [])])
            before = nats
        loops.append(Loop((*rounds, len(events)), batch, chunk))
        events.append(Release(before))
        gradients = []
        for n in reversed(range(layers)):
            gradients.append(take(3 * width, "aten::mm", "backward", f"blocks.{n}.mlp", "gradients"))
            events.append(Release(kept[n]))
        if number == 0:
            state = [take(6 * width, "aten::zeros_like", "update", "", "optimizer") for _ in weights]
        events.extend(Release(one) for one in gradients)
    assert state
    return Trace(tuple(events), tuple(starts), loops=tuple(loops))


def test_the_peak_and_what_lies_there() -> None:
    """Two steps of 3 layers, 4 at once: 9 weights, 18 state, 12 activations, and at the second loss 30 of logits
    beside 10 that the round before left."""
    found = replay(step(4), Settings(expandable_segments=True))
    assert (9 + 18 + 12 + 40) * MIB == found.peak_allocated
    assert ("aten::_softmax", "forward", 2) == (found.at.operation, found.at.phase, found.step)
    assert {"logits": 40 * MIB, "optimizer": 18 * MIB, "activations": 12 * MIB, "weights": 9 * MIB} == found.by_kind
    first = max((part for part in found.parts if part.kind == "activations"), key=lambda part: part.bytes)
    assert ("blocks.*.mlp", 12 * MIB, 3) == (first.layer, first.bytes, first.count)
    assert 7 * MIB == found.by_layer["blocks.0.mlp"]


def test_parts_add_up_to_the_peak() -> None:
    """Blocks larger than what was asked for are counted as they are, as torch counts them."""
    odd = step(3, width=MIB + 1000)
    found = replay(odd)
    assert found.peak_allocated == sum(part.bytes for part in found.parts) == sum(found.by_layer.values())
    assert found.peak_requested < found.peak_allocated <= found.peak_reserved
    assert found.fragmentation == pytest.approx(1 - found.peak_allocated / found.peak_reserved)


def test_the_curve_is_of_the_step_with_the_peak() -> None:
    """It begins with the second step, keeps the highest points, and goes through all phases."""
    trace = step(4, layers=400)
    found = replay(trace, Settings(expandable_segments=True))
    assert len(found.curve) <= 240
    assert trace.steps[1] <= found.curve[0].event
    assert found.peak_allocated == max(moment.allocated for moment in found.curve)
    assert ["forward", "backward"] == list(dict.fromkeys(moment.phase for moment in found.curve))


def test_a_cpu_caches_nothing() -> None:
    """On a CPU the peak is the bytes asked for, and nothing is reserved."""
    cuda = step(4, width=1000)
    cpu = Trace(cuda.events, cuda.steps, "cpu")
    found = replay(cpu)
    live = accumulate(e.bytes if isinstance(e, Allocation) else -size_of(cpu, e.key) for e in cpu.events)
    assert (max(live), 0) == (found.peak_allocated, found.peak_reserved)


def size_of(trace: Trace, key: int) -> int:
    return next(e.bytes for e in trace.events if isinstance(e, Allocation) and e.key == key)


def test_where_memory_runs_out() -> None:
    """With 70 MiB there is no room for the second step's softmax, and that is said."""
    found = replay(step(4), Settings(expandable_segments=True), capacity=70 * MIB)
    assert found.shortage is not None
    assert ("aten::_softmax", "", 10 * MIB) == (
        found.shortage.allocation.operation,
        found.shortage.allocation.layer,
        found.shortage.wanted,
    )


def test_layers_alike() -> None:
    """Numbers between dots become stars, those in names do not."""
    assert "encoder.block.*.layer.*.conv1d" == like_layers("encoder.block.3.layer.0.conv1d")


@pytest.mark.parametrize("settings", [Settings(), Settings(expandable_segments=True)], ids=["plain", "expandable"])
@pytest.mark.parametrize("batch", [1, 2, 5, 17, 40])
@pytest.mark.parametrize("chunk", [1, 2, 3, 64])
def test_two_traces_give_any_other(settings: Settings, batch: int, chunk: int) -> None:
    """From 5 and 7 at once: at any other the same allocated and reserved as traced there, to the byte, with rounds of
    the loss that are whole and with a last one that is not, however many."""
    fitted, traced = CachingAllocator(settings), CachingAllocator(settings)
    family = fit({5: step(5, chunk=chunk), 7: step(7, chunk=chunk)})
    assert peaks(family.events(batch), fitted)
    assert peaks(sizes(step(batch, chunk=chunk)), traced)
    assert (traced.peak_allocated, traced.peak_reserved) == (fitted.peak_allocated, fitted.peak_reserved)


def test_a_loss_that_was_never_seen_to_go_around_twice() -> None:
    """Two traces within one chunk say nothing of more rows than that."""
    family = fit({2: step(2, chunk=4), 4: step(4, chunk=4)})
    assert family.events(3)
    with pytest.raises(Unalike, match="more than once"):
        family.events(5)


def test_rounds_that_are_not_alike() -> None:
    """Bytes of as many rows differ between traces: no line goes through them."""
    with pytest.raises(Unalike, match="rounds"):
        fit({5: step(5), 7: step(7, width=MIB + 512)})


def test_three_traces_give_a_parabola() -> None:
    """What grows with the square of the length is fitted from three lengths."""
    family = fit({length: step(length**2) for length in (2, 3, 5)})
    allocator, traced = CachingAllocator(), CachingAllocator()
    peaks(family.events(9), allocator)
    peaks(sizes(step(81)), traced)
    assert traced.peak_reserved == allocator.peak_reserved


def test_traces_of_different_steps() -> None:
    """Another number of layers is another step."""
    with pytest.raises(Unalike):
        fit({4: step(4, layers=3), 8: step(8, layers=4)})


def test_the_largest_that_fits() -> None:
    """Of 100 MiB 67 are taken whatever the batch, and 3 by a sequence: 11 at most, less what falls between pages."""
    family = fit({4: step(4), 8: step(8)})
    growing = Settings(expandable_segments=True)

    def holds(events: list[tuple[int, int]]) -> bool:
        return peaks(events, CachingAllocator(growing, capacity=100 * MIB))

    one_by_one = max(batch for batch in range(1, 20) if holds(sizes(step(batch))))
    assert one_by_one == largest(lambda batch: holds(family.events(batch)))
    assert 9 <= one_by_one <= 11
    assert largest(lambda _: False) == 0


def test_the_last_step_alone() -> None:
    """What is there before it stays, what was given back before it never was."""
    trace = step(4)
    alone = last_step(trace)
    assert (9 + 18) * MIB == sum(e.bytes for e in alone.events[: alone.steps[0]] if isinstance(e, Allocation))
    assert trace.events[trace.steps[1] :] == alone.events[alone.steps[0] :]
    assert replay(trace).peak_allocated == replay(alone).peak_allocated
