"""What is traced once and written down as often as it happens: as if all of it had been looked at."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from ganeum.config import Config
from ganeum.hardware.card import card
from ganeum.plan import execution
from ganeum.plan.trace import repeated
from ganeum.plan.trace.affine import fit
from ganeum.plan.trace.allocator import CachingAllocator
from ganeum.plan.trace.child import Answer, Child
from ganeum.plan.trace.events import Allocation, Trace
from ganeum.plan.trace.operations import Operations
from ganeum.plan.trace.repeated import Repeated
from ganeum.plan.trace.replay import peaks, sizes
from ganeum.plan.trace.room import Room, largest
from ganeum.plan.trace.step import trace

CARD = card("Small Card: 3GB, bf16 30 TFLOPS, bandwidth 300 GB/s")


def run(**train: Any) -> Config:
    return Config.model_validate(
        {
            "name": "small",
            "model": {"n_layer": 1, "n_head": 2, "n_embd": 64, "block_size": 48, "vocab_size": 1000},
            "train": {
                "batch_size": 64,
                "precision": "bf16",
                "max_iters": 10,
                "compile": False,
                "activation_checkpointing": "none",
                "loss_chunk": 64,
                **train,
            },
        }
    )


@cache
def at_once(size: int) -> Trace:
    """Of the config without anything besides, so many sequences at once."""
    config = run()
    return trace(config, CARD, execution.replace(execution.of(config, CARD, size), accumulation=1))


def numbered(traced: Trace) -> list[Any]:
    """The events, allocations by their order in place of their keys."""
    order: dict[int, int] = {}
    found: list[Any] = []
    for event in traced.events:
        if isinstance(event, Allocation):
            order[event.key] = len(order)
            found.append((order[event.key], event.bytes, event.operation, event.phase, event.kind, event.source))
        else:
            found.append(order[event.key])
    return found


@pytest.mark.parametrize("train", [{}, {"optimizer": "adamw8bit"}, {"optimizer": "adafactor"}, {"weights": "bf16"}])
def test_copies_are_what_would_have_been_seen(train: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Events, operations, rounds and steps: the same as of every round of the loss and every piece of an update."""
    monkeypatch.setattr("ganeum.step.optimizers.PIECE", 1 << 14)  # many pieces
    config = run(**train)
    way = execution.of(config, CARD, 7)
    some, all_of_them = Operations(), Operations()
    copied = trace(config, CARD, way, some)
    monkeypatch.setattr(repeated, "LOOKED_AT", 1 << 20)
    monkeypatch.setattr(Repeated, "updates", lambda *_: None)
    whole = trace(config, CARD, way, all_of_them)
    assert numbered(whole) == numbered(copied)
    assert (whole.loops, whole.steps) == (copied.loops, copied.steps)
    assert all_of_them.counts == some.counts
    assert 6 == len(copied.loops[0].starts) - 1


def test_two_sizes_give_any_other_of_a_real_step() -> None:
    """336 and 480 rows of a loss, in chunks of 64: at 9 and at 12 sequences what is traced there, to the byte. (In
    fp32: flash attention's sums in a fixed order take memory in steps of the card's processors.)"""
    config = run(precision="fp32")

    def of(size: int) -> Trace:
        return trace(config, CARD, execution.of(config, CARD, size))

    family = fit({7: of(7), 10: of(10)})
    for size in (9, 12):
        fitted, traced = CachingAllocator(), CachingAllocator()
        peaks(family.events(size), fitted)
        peaks(sizes(of(size)), traced)
        assert (traced.peak_allocated, traced.peak_reserved) == (fitted.peak_allocated, fitted.peak_reserved)


@pytest.mark.parametrize("guess", [1, 30, 400])
def test_the_most_at_once_in_few_traces(guess: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the guess: a number that fits and whose next does not, from at most 6 traces."""
    config, asked = run(), []

    def answer(_: Child, config: Config, device: Any, way: execution.Execution, **__: Any) -> Answer:
        asked.append(way.micro_batch_size)
        assert way.accumulation == 1
        return Answer(at_once(way.micro_batch_size))

    monkeypatch.setattr(Child, "run", answer)
    monkeypatch.setattr("ganeum.plan.trace.room.SPARE", 0.9)  # of the card a tenth is left
    way = execution.of(config, CARD, 1)
    way = execution.replace(way, accumulation=1)
    found = largest(Child(), config, CARD, way, guess, 1 << 16).size
    assert len(asked) <= 6
    for size, fits in ((found, True), (found + 1, False)):
        assert fits == Room.of(CARD, Answer(at_once(size))).holds(sizes(at_once(size)))
