"""What becomes larger with each step and is no further tensor of the same kind; and what only looks so."""

from __future__ import annotations

import mmap
import sys
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from test_doctor_memory import MIB, VOCABULARY, found, training
from torch import Tensor

from ganeum.doctor.finding import Finding
from ganeum.doctor.measured.training import Training

LOGITS = 4 * 4 * 8 * VOCABULARY  # bytes of a batch's, fp32


def joined(state: dict[str, Any], out: Tensor) -> None:
    state["all"] = torch.cat([state.get("all", out.new_zeros(0)), out.detach().flatten()])


def added(state: dict[str, Any], loss: Tensor) -> None:
    state["total"] = state.get("total", 0.0) + loss


def averaged(state: dict[str, Any], weights: Tensor) -> None:
    state["mean"] = 0.9 * state.get("mean", 0.0) + 0.1 * weights


def alone(one: Training) -> Finding:
    (told,) = found(one)[0]
    return told


def test_a_tensor_that_others_are_joined_to_is_told_with_what_each_step_adds() -> None:
    """torch.cat of each step's logits: their bytes, by the name that the tensor has."""
    state: dict[str, Any] = {}
    told = alone(training(lambda _, out: joined(state, out)))
    assert told.size == pytest.approx(LOGITS / MIB)
    assert told.evidence[0].endswith("by now: all")


@pytest.mark.slow
def test_outputs_of_other_lengths_in_each_step_pile_up_too() -> None:
    """No two of one shape, all of them in a list."""
    outputs: list[Tensor] = []
    one = training(lambda _, out: outputs.append(out.detach()))
    one.batches = [torch.randint(0, VOCABULARY, (4, 9 + n * 7 % 12)) for n in range(12)]
    told = alone(one)
    assert "kept_logits" == told.cause
    assert "a list of 12 called outputs" in told.evidence[0]


@pytest.mark.parametrize("added_to", ["total", "mean"])
def test_a_graph_that_each_step_adds_to_is_told(added_to: str) -> None:
    """A sum of losses, and a mean of weights: nothing piles up, and the graph reaches back to the first step."""
    state: dict[str, Any] = {}
    one = training(lambda loss, _: added(state, loss) if added_to == "total" else averaged(state, weights))
    weights = next(one.model.parameters())
    told = alone(one)
    assert ("kept_graph", f"it is {added_to}'s") == (told.cause, told.evidence[0])


@pytest.mark.parametrize(
    "kept",
    [
        lambda state, loss, out: state.update(all=torch.cat([state.get("all", out.new_zeros(0)), out[0, 0]])[-3000:]),
        lambda state, loss, out: state.update(total=state.get("total", 0.0) + loss.detach()),
        lambda state, loss, out: state.update(loss=loss, out=out),
    ],
    ids=["the last of them", "a detached sum", "the latest"],
)
def test_what_is_replaced_or_cut_does_not_grow(kept: Callable[..., Any]) -> None:
    """A tensor that is cut at a length, a sum without its graph, the latest loss with its graph."""
    state: dict[str, Any] = {}
    assert [] == found(training(lambda loss, out: kept(state, loss, out.detach())))[0]


@pytest.mark.slow
def test_a_data_set_that_keeps_what_it_has_read_is_no_leak() -> None:
    """Rows of other lengths that are new once and there afterwards; the same of one length."""
    for length in (lambda n: 9 + n * 5 % 16, lambda n: 9):
        rows = cache(lambda n, length=length: torch.randint(0, VOCABULARY, (64, length(n))))

        class Rows:
            def __iter__(self) -> Any:
                return (rows(n)[:4] for n in range(100))  # noqa: B023 (used within the loop)

        one = training()
        one.batches = Rows()
        assert [] == found(one)[0]


def test_batches_that_nobody_seeded_come_again_all_the_same() -> None:
    """Shuffled by the global generator: rows that are kept as they are read are kept once."""
    row = cache(lambda n: torch.full((4096,), n % VOCABULARY))

    class Rows(torch.utils.data.Dataset[Tensor]):
        def __len__(self) -> int:
            return 400

        def __getitem__(self, n: int) -> Tensor:
            return row(n)[:9]

    one = training()
    one.batches = torch.utils.data.DataLoader(Rows(), batch_size=4, shuffle=True)
    assert [] == found(one)[0]


def test_what_holds_so_many_at_most_is_a_note() -> None:
    """The last hundred of a deque."""
    last: deque[Tensor] = deque(maxlen=100)
    told = alone(training(lambda _, out: last.append(out.detach())))
    assert ("note", "held by a deque of 12 called last, which holds 100 at most") == (told.severity, told.evidence[0])


@pytest.mark.slow
def test_an_exception_that_is_kept_holds_its_functions_variables() -> None:
    """Through its traceback and the frame in it: a list of them is named."""
    errors: list[Exception] = []

    def fails(out: Tensor) -> None:
        scaled = 2 * out.detach()
        try:
            raise ValueError(scaled.shape)
        except ValueError as error:
            errors.append(error)

    told, _ = found(training(lambda _, out: fails(out)))
    assert "held by a list of 12 called errors" in {one.evidence[0] for one in told}


def test_a_functions_cache_is_named_by_the_function() -> None:
    """Tensors are never equal as keys, so each step adds one."""

    @cache
    def doubled(out: Tensor) -> Tensor:
        return 2 * out

    def after(_: Tensor, out: Tensor) -> None:
        doubled(out.detach())

    assert ("held by a cache of 12 called doubled",) == alone(training(after)).evidence


def test_a_long_dictionary_on_the_way_is_not_what_grows() -> None:
    """A parameter more in each step: the list of groups, and not the dozen settings of a group."""
    one = training()
    optimizer = torch.optim.AdamW(one.model.parameters())
    inner = one.step

    def step(batch: Tensor) -> Any:
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(64, 64))]})
        return inner(batch)

    one.step = step
    assert "called param_groups" in alone(one).evidence[0]


def test_gradients_that_come_every_eighth_step_are_no_zeros() -> None:
    """Accumulated in one graph: the first steps have none, and the eighth has."""
    one = training()
    model, total = one.model, []
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)

    def step(batch: Tensor) -> Tensor:
        loss = torch.nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        total.append(loss / 8)
        if len(total) == 8:
            torch.stack(total).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            total.clear()
        return loss.detach()

    one.step = step
    assert "dead_parameters" not in {told.cause for told in found(one)[0]}


def test_a_list_of_other_things_is_evidence_of_memory_that_grows() -> None:
    """Arrays of numpy's are no tensors: with what the processes hold they are named."""
    arrays: list[Any] = []

    def keep(out: Tensor) -> None:
        size = 8 * LOGITS  # in memory of its own: malloc would take room that somebody gave back before
        own = mmap.mmap(-1, size) if sys.platform == "win32" else mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE)
        arrays.append(np.frombuffer(own, dtype=np.float32))
        arrays[-1][:] = out.detach().flatten().repeat(8)

    findings, seen = found(training(lambda _, out: keep(out)), steps=40)
    (container,) = seen["grown"]["containers"]
    assert "a list of 12 called arrays" == container["held_by"]
    assert container["bytes"] == pytest.approx(8 * LOGITS, rel=0.01)
    (told,) = findings
    assert ("memory_growth", "measured") == (told.cause, told.sure)
    assert any("called arrays has about 1.17 MiB more" in line for line in told.evidence)
