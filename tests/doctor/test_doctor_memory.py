"""`ganeum doctor memory`: what steps leave behind, and what grows for good."""

from __future__ import annotations

import mmap
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor, nn

from ganeum.doctor.finding import Finding
from ganeum.doctor.measured import creep
from ganeum.doctor.measured.training import Training
from ganeum.doctor.memory import observed
from ganeum.doctor.memory.growth import growth, slope
from ganeum.doctor.memory.holder import Held

MIB = 2**20
VOCABULARY, WIDTH = 1200, 16


class Model(nn.Module):
    """An embedding, a layer, a head; and what a test adds."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.layer(self.embedding(ids))))
        return out


def training(
    after: Callable[[Tensor, Tensor], None] = lambda loss, out: None, *, retain: bool = False, **changes: Any
) -> Training:
    """Batches of 4 × 8 ids; ``after`` sees each loss and output, ``retain`` keeps the graph over backward()."""
    torch.manual_seed(0)
    model = Model()
    for name, module in changes.items():
        setattr(model, name, module)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)

    def step(batch: Tensor) -> Tensor:
        out = model(batch[:, :-1])
        loss = nn.functional.cross_entropy(out.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward(retain_graph=retain)  # type: ignore[no-untyped-call]
        optimizer.step()
        after(loss, out)
        return loss.detach()

    return Training(model, [torch.randint(0, VOCABULARY, (4, 9)) for _ in range(3)], step, optimizer)


def found(one: Training, steps: int = 0) -> tuple[list[Finding], Mapping[str, Any]]:
    """After ``steps`` beside the watched ones."""
    seen = creep.watch(one, steps=steps, seconds=20)
    return list(observed.findings(seen)), seen


def test_an_honest_training_is_silent() -> None:
    """No finding, and it is said what was looked for: graphs, growth, gradients, doubles."""
    findings, seen = found(training(), steps=60)
    assert [] == findings
    assert [0] * creep.WATCHED == seen["kept"]
    assert 4 == len(list(observed.silent(seen)))


def test_a_graph_that_is_kept_is_counted_to_the_byte() -> None:
    """A loss that stays with its graph: embedded ids, two layers' inputs, and what cross-entropy keeps, each step."""
    losses: list[Tensor] = []
    findings, seen = found(training(lambda loss, _: losses.append(loss), retain=True))
    (one,) = findings
    assert ("kept_graph", "error", "measured") == (one.cause, one.severity, one.sure)
    tokens = 4 * 8
    # fp32: tanh's output, the embedded ids (both inputs of a product), log-softmax's output; int64: ids and labels;
    # cross-entropy's total weight, one number.
    each = 4 * tokens * (WIDTH + WIDTH + VOCABULARY) + 8 * 2 * tokens + 4
    assert one.size == pytest.approx(each / MIB, rel=0.01), seen["kept"]
    assert any("in a list of 12" in line for line in one.evidence)


def test_a_loss_kept_after_its_backward_pass_keeps_nodes() -> None:
    """A list of losses: a warning with the number of nodes, and not the error of kept tensors."""
    losses: list[Tensor] = []
    findings, _ = found(training(lambda loss, _: losses.append(loss)))
    (one,) = findings
    assert ("kept_graph", "warning") == (one.cause, one.severity)
    assert "nodes of its graph" in one.title


def test_outputs_that_pile_up_are_named_with_their_shape() -> None:
    """Logits of every step in a list: so many bytes a step, as arithmetic has it."""
    outputs: list[Tensor] = []
    findings, _ = found(training(lambda _, out: outputs.append(out.detach())))
    (one,) = findings
    assert "kept_logits" == one.cause
    assert one.size == pytest.approx(4 * 4 * 8 * VOCABULARY / MIB)
    assert "(4 × 8 × 1200, float32)" in one.title


@pytest.mark.parametrize(
    ("keep", "held_by"),
    [
        (lambda kept, one: kept.append((1, one)), "a list of 12 called kept"),
        (lambda kept, one: kept.append({"logits": one}), "a list of 12 called kept"),
        (lambda kept, one: kept.append(lambda: one), "a list of 12 called kept"),
        (lambda kept, one: kept.append(SimpleNamespace(logits=one)), "a list of 12 called kept"),
    ],
    ids=["tuple", "dict", "closure", "object"],
)
def test_what_holds_them_is_named_through_what_lies_between(keep: Callable[..., None], held_by: str) -> None:
    """A tuple, a metric's dictionary, a closure, an object: the list they are in, by its variable's name."""
    kept: list[Any] = []
    (one,) = found(training(lambda _, out: keep(kept, out.detach())))[0]
    assert (f"held by {held_by}",) == one.evidence


def test_hooks_that_each_step_adds_are_told() -> None:
    """Two to a layer in every step; a hook that is there from the start, and one that is removed again, are none."""
    once = training()
    once.model.register_forward_hook(lambda *_: None)
    assert [] == found(once)[0]

    def add(*_: Tensor) -> None:
        layer, head = more.model.get_submodule("layer"), more.model.get_submodule("head")
        layer.register_forward_hook(lambda *_: None)
        layer.register_forward_pre_hook(lambda *_: None)
        head.register_forward_hook(lambda *_: None).remove()

    more = training(add)
    (one,) = found(more)[0]
    assert ("hooks a step: 2 to layer",) == one.evidence


def test_pages_of_a_file_that_is_read_are_no_memory_that_is_kept(tmp_path: Path) -> None:
    """32 MiB of a map that are read count as the process's (RSS), and as nothing that it holds; 32 MiB of ones do."""
    file = tmp_path / "train.bin"
    file.write_bytes(bytes(32 * MIB))
    held, process = Held(), psutil.Process()
    before, resident = held.bytes(), process.memory_info().rss
    mapped = np.memmap(file, dtype=np.uint8, mode="r")
    mapped.sum()
    if process.memory_info().rss - resident >= 24 * MIB and sys.platform == "linux":
        assert held.bytes() - before < 8 * MIB
    # of its own: malloc would take room that somebody gave back before
    own = mmap.mmap(-1, 32 * MIB) if sys.platform == "win32" else mmap.mmap(-1, 32 * MIB, flags=mmap.MAP_PRIVATE)
    ones = np.frombuffer(own, dtype=np.uint8)
    ones[:] = 1
    assert held.bytes() - before >= 24 * MIB


def test_the_latest_output_alone_is_no_pile() -> None:
    """What is replaced in every step does not grow."""
    latest: dict[str, Tensor] = {}
    assert [] == found(training(lambda loss, out: latest.update(loss=loss.detach(), out=out.detach())))[0]


def test_many_alike_that_are_replaced_are_no_pile() -> None:
    """Twenty tensors of one shape, new ones in every step: more of them are new than there were steps, and no more."""
    latest: dict[int, Tensor] = {}
    copies = training(lambda loss, _: latest.update({n: torch.full((64, 32), float(n)) for n in range(20)}))
    assert [] == found(copies)[0]


def test_a_second_pass_whose_loss_is_only_looked_at_leaves_nothing() -> None:
    """A graph without a backward pass is let go with its loss, although what it saved is watched."""
    one = training()
    inner = one.step

    def step(batch: Tensor) -> Tensor:
        loss: Tensor = inner(batch)
        float(one.model(batch).log_softmax(-1).mean())  # log_softmax saves its own output
        return loss

    one.step = step
    findings, seen = found(one)
    assert [0] * creep.WATCHED == seen["kept"]
    assert [] == findings


def test_parameters_without_a_gradient_are_found_and_frozen_ones_are_not() -> None:
    """A layer that nothing uses is dead; one that is frozen on purpose is not told."""
    (one,) = found(training(unused=nn.Linear(WIDTH, WIDTH)))[0]
    assert "dead_parameters" == one.cause
    assert "unused.weight, unused.bias" in one.evidence[0]
    assert one.size == pytest.approx(4 * (WIDTH * WIDTH + WIDTH) / MIB)
    frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
    assert [] == found(training(unused=frozen))[0]


def test_a_head_that_was_tied_on_paper_is_found() -> None:
    """Equal numbers in two storages are told; one storage for both is not, and is counted once."""
    copy = training()
    with torch.no_grad():
        copy.model.head.weight.copy_(copy.model.embedding.weight)  # type: ignore[union-attr, operator, arg-type]
    (one,) = found(copy)[0]
    assert "duplicated_parameters" == one.cause
    assert one.size == pytest.approx(4 * VOCABULARY * WIDTH / MIB)
    tied = training()
    tied.model.head.weight = tied.model.embedding.weight  # type: ignore[union-attr]
    findings, seen = found(tied)
    assert [] == findings
    assert [["embedding.weight", "head.weight"]] == seen["parameters"]["tied"]


def test_a_slope_is_theil_and_sens() -> None:
    """The median of all slopes: one point far away does not move it; the worked example of a line is exact."""
    points = [(float(n), 3.0 * n + 1) for n in range(12)]
    assert (3.0, 3.0, 3.0) == slope(points)
    points[7] = (7.0, 900.0)
    assert 3.0 == slope(points)[0]


@pytest.mark.parametrize(
    ("held", "lasting"),
    [
        (lambda n: 500 * MIB + 2 * MIB * n, True),
        (lambda n: 500 * MIB + 100 * MIB * (1 - 0.9**n), False),  # caches that fill
        (lambda n: 500 * MIB + 400 * MIB * (1 - 0.94**n), False),  # slowly
        (lambda n: 500 * MIB + 300 * MIB * (n > 30), False),  # one jump
        (lambda n: 500 * MIB, False),
    ],
    ids=["a leak", "warming up", "warming up slowly", "a jump", "level"],
)
def test_growth_that_lasts_is_told_from_growth_that_ends(held: Callable[[int], float], lasting: bool) -> None:
    """Over 100 steps with 1 MiB of noise, by pages of 4 KiB."""
    draw = random.Random(1)
    values = [4096 * round((held(n) + draw.gauss(0, MIB)) / 4096) for n in range(100)]
    seen = growth(range(100), values)
    assert seen is not None
    assert lasting == seen.lasting
    if lasting:
        assert seen.low <= 2 * MIB <= seen.high


def test_noise_alone_never_grows() -> None:
    """200 series of noise, and of memory that walks at random by little: none is called a leak."""
    draw = random.Random(2)
    for _ in range(200):
        at, values = 400.0 * MIB, []
        for _ in range(60):
            at += draw.gauss(0, 50_000)
            values.append(at + draw.gauss(0, MIB))
        seen = growth(range(60), values)
        assert seen is not None
        assert not seen.lasting
