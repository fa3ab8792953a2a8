"""What a step does beside learning is found by its lines, and attention by what its numbers go through."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_training import Sound, Tiny, apart, batches
from tiny_training import loaded as loaded
from tiny_training import one_thread as one_thread
from torch import Tensor, nn
from torch.nn import functional as F

from ganeum.doctor.measured import by_hand, by_turns, lines, loops
from ganeum.doctor.measured.remedies import told
from ganeum.doctor.measured.training import Training

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes of these tests are forked")
STEP = {"device": "cpu"}


def busy(seconds: float) -> None:
    ended = time.thread_time() + seconds
    while time.thread_time() < ended:
        pass


def heavy() -> Tiny:
    """Its forward pass takes 10 ms."""
    model = Tiny()
    model.around = lambda block, x: (busy(0.005), block(x))[1]
    return model


def scored(_: Training) -> None:
    busy(0.03)


def test_time_beside_learning_is_found_with_its_line() -> None:
    """30 ms of Python after a forward pass of 10 ms: most of the step, in `busy`'s loop; the model's is not told."""

    def look() -> tuple[Any, Any]:
        with_it = lines.of(Sound(model=heavy, after=scored).build())["beside"]
        return with_it, lines.of(Sound(model=heavy).build())["beside"]

    with_it, without = apart(look)
    assert 0.4 < with_it["share"] < 0.85
    assert with_it["interval"][0] <= with_it["share"] <= with_it["interval"][1]
    assert with_it["lines"][0][0].startswith("test_step_lines.py, line ")
    assert without["share"] < 0.1
    (finding,) = told({**STEP, "beside": with_it})
    assert (finding.severity, finding.cause) == ("warning", "beside_learning")
    assert told({**STEP, "beside": without}) == []


def test_a_loss_and_an_update_written_by_hand_are_learning() -> None:
    """Lines that a gradient flows through, and lines that write weights."""

    def look() -> float:
        model = heavy()
        weights = list(model.parameters())

        def step(batch: dict[str, Tensor]) -> None:
            logits = model(batch["input_ids"])
            for _ in range(300):
                loss = -(logits.log_softmax(-1).mean() ** 2)
            loss.backward()
            with torch.no_grad():
                for _ in range(30):
                    for weight in weights:
                        weight.sub_(0.0 if weight.grad is None else weight.grad * 1e-4)
            for weight in weights:
                weight.grad = None

        return float(lines.of(Training(model, batches(), step))["beside"]["share"])

    assert apart(look) < 0.15


class OneByOne(Tiny):
    """Looks its tokens up one after the other."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        if type(self) is not OneByOne:
            return super().forward(input_ids)
        rows = []
        for token in input_ids.flatten():
            rows.append(self.tokens(token) + self.places.weight[0])
        x = torch.stack(rows).unflatten(0, input_ids.shape)
        for block in self.blocks:
            x = block(x)
        return self.head(x)  # type: ignore[no-any-return]


class Whole(OneByOne):
    """The same with one call."""


def test_a_loop_over_tokens_is_found_in_a_model() -> None:
    """Twelve by 32 of them looked up one by one, where the model with one call has nothing to tell."""

    def look() -> tuple[Any, Any]:
        data = [{name: tensor.repeat(8, 1) for name, tensor in batch.items()} for batch in batches()]
        return tuple(lines.of(Sound(model=model, data=data).build())["loops"] for model in (OneByOne, Whole))  # type: ignore[return-value]

    loop, whole = apart(look)
    assert loop["share"] > 0.1
    assert (loop["calls"], loop["largest"]) == (3 * 32 * 12, 16)
    assert whole["lines"] == []
    (finding,) = (one for one in told({**STEP, "loops": loop}) if one.cause == "python_loop")
    assert finding.severity in ("warning", "note")
    assert told({**STEP, "loops": whole}) == []


def place_by_place(logits: Tensor, labels: Tensor) -> Tensor:
    total = torch.zeros(())
    for place in range(labels.size(1) - 1):
        total = total + F.cross_entropy(logits[:, place], labels[:, place + 1], ignore_index=-100, reduction="sum")
    return total / (labels[:, 1:] != -100).sum()


def at_once(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def test_a_loop_over_places_is_found_with_its_backward_pass() -> None:
    """A loss of 39 pieces of logits, each larger than the batch has tokens; with one call there is nothing to tell."""

    def look(loss_of: Callable[[Tensor, Tensor], Tensor]) -> Any:
        model = Tiny()

        def step(batch: dict[str, Tensor]) -> None:
            loss_of(model(batch["input_ids"]), batch["labels"]).backward()
            model.zero_grad()

        return lines.of(Training(model, batches(columns=40, longest=40), step))["loops"]

    loop, whole = apart(lambda: (look(place_by_place), look(at_once)))
    assert (loop["calls"] >= 4 * 39, loop["largest"]) == (True, 4 * 48)
    assert "total = total + F.cross_entropy" in loop["lines"][0][1]
    assert loop["backward"] > loop["at_once"] > 0
    assert loop["share"] > loop["lines"][0][2]
    (finding,) = (one for one in told({**STEP, "loops": loop}) if one.cause == "python_loop")
    assert "in the backward pass" in finding.evidence[-1]
    assert whole["lines"] == []


def test_text_made_of_tensors_is_found_in_a_model() -> None:
    """Written out by each block, for nobody; what else a block does is the model's."""

    def talking() -> Tiny:
        model = Tiny()
        model.around = lambda block, x: (f"{x}", block(x))[1]
        return model

    talks, silent = apart(lambda: [lines.of(Sound(model=model).build())["beside"] for model in (talking, Tiny)])
    assert talks["share"] > 0.3 > 0.15 > silent["share"]
    assert talks["lines"][0][1].startswith("model.around = lambda block, x:")


def test_numbers_read_back_are_counted_by_their_line() -> None:
    """Three of them a step; on a GPU they are told, on a CPU there is nothing to wait for."""

    def look() -> Any:
        def read(training: Training) -> None:
            weight: Tensor = training.model.head.weight  # type: ignore[union-attr,assignment]
            weight.sum().item(), weight[0].tolist(), bool((weight == 7).any())

        return lines.of(Sound(after=read).build())["waits"], lines.of(Sound().build())["waits"]

    found, none = apart(look)
    assert (found["calls"], none["calls"]) == (3, 0)
    assert "weight.sum().item()" in found["lines"][0][1]
    (note,) = told({**STEP, "device": "cuda", "waits": found})
    assert (note.severity, "reads 3 numbers back" in note.title) == ("note", True)
    assert told({**STEP, "waits": found}) == []


def test_a_timer_of_somebody_s_own_is_left_alone() -> None:
    """Where SIGALRM is in use nothing is measured, and it is as it was."""

    def look() -> tuple[Any, bool]:
        import signal

        def own(*_: Any) -> None: ...

        signal.signal(signal.SIGALRM, own)
        return lines.of(Sound().build())["beside"], signal.getsignal(signal.SIGALRM) is own

    assert apart(look) == (None, True)


class Attends(nn.Module):
    """One layer over long rows: ids (B, T) → logits (B, T, V); ``attend`` of q, k, v (B, H, T, D)."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor], length: int = 192) -> None:
        super().__init__()
        self.tokens, self.qkv, self.head = nn.Embedding(48, 32), nn.Linear(32, 96), nn.Linear(32, 48)
        self.attend, self.length = attend, length

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.tokens(input_ids[:, :1].expand(-1, self.length))
        q, k, v = (part.unflatten(-1, (2, 16)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        y = self.attend(q, k, v).transpose(1, 2).flatten(2)
        return self.head(y)[:, : input_ids.size(1)]  # type: ignore[no-any-return]


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(-2, -1) / 4.0
    causal = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    weights = F.dropout(scores.masked_fill(~causal, float("-inf")).softmax(-1), 0.1)
    return weights @ v


def einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.softmax(torch.einsum("bhtd,bhsd->bhts", q, k) * 0.25, dim=-1)
    return torch.einsum("bhts,bhsd->bhtd", weights, v)


def linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax over features, which no kernel for attention computes."""
    return q.softmax(-1) @ (k.softmax(-2).transpose(-2, -1) @ v)


def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's own, by whichever kernel it takes."""
    return F.scaled_dot_product_attention(q.double(), k.double(), v.double(), dropout_p=0.1).float()


def attending(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Any:
    return apart(lambda: by_hand.of(Sound(model=lambda: Attends(attend)).build()))


@pytest.mark.parametrize("attend", [plain, einsum])
def test_attention_by_hand_is_seen(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Once a step, however it is written."""
    found = attending(attend)
    assert found["calls"] == 1
    assert found["interval"][0] <= found["seconds"] <= found["interval"][1]


def test_a_mask_that_hides_what_lies_ahead_is_known() -> None:
    """Filled with −∞ there: torch's kernel is asked to be causal. Without a mask it is not."""

    def look(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> list[tuple[bool, ...]]:
        seen = by_hand._Seen()
        with seen:
            Sound(model=lambda: Attends(attend)).build().step(batches()[0])
        return [(one.causal, one.filled, one.added, one.scaled) for one in seen.found]

    assert apart(lambda: look(plain)) == [(True, True, False, True)]
    assert apart(lambda: look(einsum)) == [(False, False, False, True)]


@pytest.mark.parametrize("attend", [linear, masked])
def test_other_products_and_torchs_own_attention_are_not(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    assert attending(attend) is None


@pytest.mark.parametrize(
    ("saved", "said"),
    [((0.0012, 0.001, 0.0014), "warning"), ((0.0003, 0.00025, 0.0004), "note"), ((0.0003, -0.0001, 0.001), None)],
)
def test_what_a_kernel_saves_decides(saved: tuple[float, float, float], said: str | None) -> None:
    """Of a step of 10 ms: a tenth is a warning, 3 % a note, what may be nothing is nothing."""
    found = told({**STEP, "by_hand": {"calls": 2, "seconds": saved[0], "interval": saved[1:], "step_s": 0.01}})
    assert [finding.severity for finding in found] == ([] if said is None else [said])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer looks; and by the clock of the thread that steps: other programs that take the core take none of its
    time."""
    for module in (lines, loops):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=time.thread_time))
    monkeypatch.setattr(lines, "GROUPS", 8)
    monkeypatch.setattr(by_turns, "LONGEST_S", 0.02)
