"""Trainings that learn the wrong thing are seen by their own steps, and honest ones are left alone."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from honest import (
    BEGIN,
    END,
    PAD,
    UNKNOWN,
    Carried,
    Plain,
    Pooled,
    T,
    Tokens,
    V,
    adamw,
    asks_again,
    frozen_encoder,
    padded,
    pairs,
    plain,
    sharpness_aware,
    theirs,
    windows,
    with_experts,
    with_lora,
    without_optimizer,
)  # fmt: skip
from torch import Tensor, nn

from ganeum.doctor.causes import causes
from ganeum.doctor.examine import examine
from ganeum.doctor.examine.repeats import _of
from ganeum.doctor.finding import Finding
from ganeum.doctor.measured.training import Training

pytest.importorskip("transformers")


def alarms(training: Training, **settings: Any) -> list[str]:
    return [finding.cause for finding in examine(training, **settings) if finding.is_alarm]


class EndIsPad(Tokens):
    eos_token_id = PAD


class Turns(Tokens):
    """Of a chat: turns end in a token of their own, and padding is the end of text."""

    eos_token_id = PAD


def scaled(factor: float) -> nn.Module:
    model = Plain()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p *= factor
    return model


def frozen(model: nn.Module, *names: str) -> nn.Module:
    for name, p in model.named_parameters():
        p.requires_grad_(not name.startswith(names))
    return model


def not_causal(model: Plain) -> Plain:
    for block in model.blocks:
        block.causal = False
    return model


class Cut(Plain):
    """The way back ends between its blocks."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        h = self.wte(x) + self.wpe(torch.arange(x.shape[1]))
        h = self.blocks[1](self.blocks[0](h).detach())
        logits = self.head(self.norm(h))
        return logits, F.cross_entropy(logits.view(-1, V), y.view(-1))


class ByHand(Plain):
    """Log-probabilities taken out by hand, padding left out behind them; classes in the second dimension."""

    def __init__(self, shift: int = 1, gathered: bool = True) -> None:
        super().__init__()
        self.shift, self.gathered = shift, gathered

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        logits, _ = super().forward(x)
        n = x.shape[1] - self.shift
        given, wanted = logits[:, :n], x[:, self.shift :]
        if not self.gathered:
            nats = F.cross_entropy(given.transpose(1, 2), wanted, reduction="none")
        else:
            nats = -given.log_softmax(-1).gather(-1, wanted[..., None])[..., 0]
        counts = (wanted != PAD).float()
        return logits, (nats * counts).sum() / counts.sum()


class NoGrad(Plain):
    """Its table is asked without a way back."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        with torch.no_grad():
            h = self.wte(x) + self.wpe(torch.arange(x.shape[1]))
        for block in self.blocks:
            h = block(h)
        return h, F.cross_entropy(F.linear(self.norm(h), self.wte.weight.detach()).view(-1, V), y.view(-1))


def filled(by: int = PAD) -> list[tuple[Tensor, Tensor]]:
    return [(one["input_ids"], one["input_ids"]) for one in padded()]


def stray_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return adamw(copy.deepcopy(model))


def halved(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for n, p in model.named_parameters() if not n.startswith("blocks.0")], lr=1e-3)


def shifted(by: int) -> list[tuple[Tensor, Tensor]]:
    whole = [torch.cat((x, y[:, -1:]), 1) for x, y in windows()]
    return [(row[:, 2 : T - 2].contiguous(), row[:, 2 + by : T - 2 + by].contiguous()) for row in whole]


def changed(batches: list[dict[str, Tensor]], **how: Callable[[dict[str, Tensor]], Tensor]) -> list[dict[str, Tensor]]:
    return [{**one, **{name: make(one) for name, make in how.items()}} for one in batches]


def without(batches: list[dict[str, Tensor]], name: str) -> list[dict[str, Tensor]]:
    return [{key: value for key, value in one.items() if key != name} for one in batches]


def places(mask: Tensor) -> Tensor:
    return (mask.cumsum(1) - 1).clamp_min(0)


def broken_weight(model: nn.Module) -> torch.optim.Optimizer:
    with torch.no_grad():
        next(model.parameters()).view(-1)[: V * 16] = float("nan")
    return adamw(model)


def all_frozen() -> Training:
    model = Plain().requires_grad_(False)
    return Training(model, windows(), lambda batch: model(*batch)[1])


def clears_each(training: Training) -> Training:
    inner, optimizer, model = training.step, training.optimizer, training.model
    assert inner is not None
    assert optimizer is not None

    def step(batch: tuple[Tensor, Tensor]) -> None:
        for x, y in zip(batch[0].chunk(2), batch[1].chunk(2), strict=True):
            optimizer.zero_grad()
            (model(x, y)[1] / 2).backward()
        optimizer.step()

    training.step = step
    return training


def gpt2(batches: Any = None, tokenizer: Any = None, **settings: Any) -> Training:
    return theirs("gpt2", batches=batches, tokenizer=tokenizer or Tokens(), **settings)


def by_length() -> list[dict[str, Tensor]]:
    """Every batch of one length, each longer than the one before."""
    found = []
    for length in range(8, 24):
        ids = torch.randint(4, V, (8, length), generator=torch.Generator().manual_seed(length))
        found.append({"input_ids": ids, "labels": ids})
    return found


HONEST: dict[str, Callable[[], Training]] = {
    "by hand": plain,
    "micro-batches, clipped": lambda: plain(micro=4, clip=1.0),
    "gradients set to zero": lambda: plain(clip=0.5),
    "left out by hand": lambda: plain(model=ByHand(), batches=filled(), tokenizer=Tokens()),
    "classes second": lambda: plain(model=ByHand(gathered=False), batches=filled(), tokenizer=Tokens()),
    "experts without tokens": with_experts,
    "windows side by side": lambda: plain(batches=windows(stride=T)),
    "gpt2": gpt2,
    "gpt2 without a tokenizer": lambda: theirs("gpt2"),
    "gpt2 on the left with positions": lambda: gpt2(
        changed(padded(left=True), position_ids=lambda one: places(one["attention_mask"]))
    ),
    "gpt2, padding is the end, masked by its mask": lambda: gpt2(padded(end=PAD), EndIsPad()),
    "gpt2 in turns": lambda: gpt2(tokenizer=Turns()),
    "gpt2 without a mask": lambda: gpt2(without(padded(), "attention_mask")),
    "gpt2 with adapters": lambda: gpt2(fresh=False, change=with_lora),
    "batches of like lengths in any order": lambda: gpt2(random.Random(1).sample(by_length(), 16)),
    "llama": lambda: theirs("llama", tokenizer=Tokens()),
    "opt, whose places follow its mask": lambda: theirs("opt", tokenizer=Tokens()),
    "an output that nobody uses": lambda: plain(model=Pooled()),
    "a state that is carried": lambda: plain(model=Carried(), batches=windows()),
    "lbfgs": asks_again,
    "sharpness-aware": sharpness_aware,
    "without an optimizer": without_optimizer,
    "llama on the left": lambda: theirs("llama", tokenizer=Tokens(), batches=padded(left=True)),
    "mixtral": lambda: theirs("mixtral", tokenizer=Tokens()),
    "t5": lambda: theirs("t5", tokenizer=Tokens()),
    "t5, its trained encoder frozen": lambda: theirs("t5", fresh=False, change=frozen_encoder),
    "t5, frozen and handed over": lambda: theirs(
        "t5", fresh=False, change=frozen_encoder, optimizer=lambda m: torch.optim.AdamW(m.parameters(), 1e-3)
    ),
    "bart": lambda: theirs("bart", tokenizer=Tokens()),
}

FAULTS: dict[str, tuple[str, Callable[[], Training]]] = {
    "padding is the end": ("pad_is_eos", lambda: gpt2(padded(end=PAD, by_id=True), EndIsPad())),
    "padding is the end, no tokenizer": ("pad_is_eos", lambda: theirs("gpt2", batches=padded(end=PAD, by_id=True))),
    "the end masked": (
        "end_not_learnt",
        lambda: gpt2(
            changed(padded(), labels=lambda one: torch.where(one["labels"] == END, -100, one["labels"]))
        ),
    ),
    "padding learnt": ("labels_on_padding", lambda: gpt2(changed(padded(), labels=lambda one: one["input_ids"]))),
    "padding learnt, t5": (
        "labels_on_padding",
        lambda: theirs("t5", batches=changed(pairs(), labels=lambda one: one["labels"].clamp_min(PAD))),
    ),
    "padding learnt by hand": (
        "labels_on_padding",
        lambda: plain(batches=[(b["input_ids"][:, :-1], b["input_ids"][:, 1:].contiguous()) for b in padded()]),
    ),
    "a table without a way back": ("never_updated", lambda: plain(model=NoGrad())),
    "not shifted": ("shifted_labels", lambda: plain(batches=shifted(0))),
    "shifted twice": ("shifted_labels", lambda: plain(batches=shifted(2))),
    "shifted back": ("shifted_labels", lambda: plain(batches=shifted(-1))),
    "shifted twice by the model": (
        "shifted_labels",
        lambda: gpt2(changed(padded(), labels=lambda one: one["labels"].roll(-1, 1))),
    ),
    "not shifted, by hand": ("shifted_labels", lambda: plain(model=ByHand(shift=0), batches=filled())),
    "sees ahead": ("causal_leak", lambda: plain(model=not_causal(Plain()))),
    "padding on the left": ("padding_side", lambda: gpt2(padded(left=True))),
    "padding on the left, unmasked": (
        "padding_side",
        lambda: theirs("llama", batches=without(padded(left=True), "attention_mask"), tokenizer=Tokens()),
    ),
    "padding not masked in an encoder": (
        "wrong_mask", lambda: theirs("t5", batches=without(pairs(), "attention_mask"), tokenizer=Tokens())
    ),
    "mask turned around": (
        "wrong_mask", lambda: gpt2(changed(padded(), attention_mask=lambda one: 1 - one["attention_mask"]))
    ),
    "mask of zeros": ("wrong_mask", lambda: gpt2(changed(padded(), attention_mask=lambda one: 0 * one["input_ids"]))),
    "not averaged": ("accumulation", lambda: plain(micro=4, divide=1)),
    "not averaged, clipped": ("accumulation", lambda: plain(micro=4, divide=1, clip=0.1)),
    "averaged twice": ("accumulation", lambda: plain(micro=4, divide=16)),
    "cleared each time": ("accumulation", lambda: clears_each(plain())),
    "never cleared": ("gradients_kept", lambda: plain(clear=False)),
    "drawn too large": ("first_loss", lambda: plain(model=scaled(40))),
    "the same batch": ("repeated_text", lambda: plain(batches=[windows()[0]] * 20)),
    "every row twice": (
        "repeated_text", lambda: plain(batches=[tuple(t[:4].repeat(2, 1) for t in one) for one in windows()])
    ),
    "windows overlap": ("overlapping_windows", lambda: plain(batches=windows(stride=6))),
    "sorted": ("sorted_data", lambda: gpt2(by_length())),
    "learning rate 0": ("never_updated", lambda: plain(optimizer=lambda m: adamw(m, 0.0))),
    "another model's optimizer": ("never_updated", lambda: plain(optimizer=stray_optimizer)),
    "half an optimizer": ("never_updated", lambda: plain(optimizer=halved)),
    "cut off": ("never_updated", lambda: plain(model=Cut())),
    "frozen as drawn": ("never_updated", lambda: plain(model=frozen(Plain(), "blocks.0"))),
    "all frozen": ("never_updated", all_frozen),
    "evaluation mode": ("eval_mode", lambda: plain(model=Plain().eval())),
    "evaluation mode, gpt2": ("eval_mode", lambda: gpt2(change=lambda model: model.eval())),
    "not a number": ("loss_nan", lambda: plain(optimizer=broken_weight)),
    "no labels": ("nothing_to_learn", lambda: gpt2(changed(padded(), labels=lambda one: 0 * one["labels"] - 100))),
    "rows without labels": (
        "nothing_to_learn",
        lambda: gpt2(changed(padded(), labels=lambda one: one["labels"].index_fill(0, torch.tensor([0, 1, 5]), -100))),
    ),
    "label beyond": (
        "vocabulary", lambda: gpt2(changed(padded(), labels=lambda one: one["labels"].where(one["labels"] != 9, V)))
    ),
    "id beyond": (
        "vocabulary",
        lambda: gpt2(changed(padded(), input_ids=lambda one: torch.where(one["input_ids"] == 9, V, one["input_ids"]))),
    ),
    "rows too long": ("vocabulary", lambda: gpt2(n_positions=8)),
    "unknown tokens": (
        "vocabulary",
        lambda: gpt2(changed(padded(), input_ids=lambda one: one["input_ids"].where(one["input_ids"] < 50, UNKNOWN))),
    ),
    "two starts": (
        "doubled_start",
        lambda: gpt2(
            changed(padded(), input_ids=lambda one: one["input_ids"].index_fill(1, torch.tensor([0, 1]), BEGIN))
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_training_is_left_alone(name: str) -> None:
    """No alarm."""
    assert [] == alarms(HONEST[name]())


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_seen(name: str) -> None:
    """It is among the alarms, measured, with evidence."""
    cause, build = FAULTS[name]
    found: list[Finding] = [one for one in examine(build()) if one.is_alarm]
    assert cause in [one.cause for one in found]
    assert all(one.sure == "measured" and one.evidence and one.cause in causes() for one in found)


def test_held_out_rows_that_are_trained_on_are_found() -> None:
    """Wholly, and in a piece of 32 tokens; other text is no overlap."""
    batches = [torch.randint(0, 999, (4, 64), generator=torch.Generator().manual_seed(n))
               for n in range(40)]  # fmt: skip
    other = [torch.randint(0, 999, (4, 64), generator=torch.Generator().manual_seed(77))]
    partly = [torch.cat((other[0][:, :10], batches[1][:, 32:64], other[0][:, :22]), 1)]

    def step(batch: Tensor) -> None:
        """Nothing is learnt: only batches are looked at."""

    def overlap(validation: list[Tensor]) -> list[float | None]:
        taken = Training(Plain(), batches, step)
        return [one.size for one in examine(taken, validation=validation) if one.cause == "validation_overlap"]

    assert [1.0] == overlap(batches[:2])
    assert [1.0] == overlap(partly)
    assert [] == overlap(other)
    assert [1.0] == overlap([batches[39]])  # far behind what is stepped on
    template = torch.arange(40).expand(4, -1)
    batches[:] = [torch.cat((template, one), 1) for one in batches]
    assert [] == overlap([torch.cat((template, one), 1) for one in other])


def test_held_out_rows_of_a_training() -> None:
    """Those that it names; where it names none, that is told, and is no alarm."""
    training = gpt2()
    assert [one.severity for one in examine(training) if one.cause == "no_validation"] == ["note"]
    training.validation = padded(2, seed=5_000)
    assert [] == [one.title for one in examine(training) if "validation" in one.cause]
    training.validation = padded(2)
    assert ["validation_overlap"] == [one.cause for one in examine(training) if "validation" in one.cause]


def test_packed_texts_are_compared_one_by_one() -> None:
    """In another order, and at other places of their rows."""
    batch = padded(1)[0]
    texts = [row[row != PAD] for row in batch["input_ids"]]

    def pack(order: list[int]) -> dict[str, Tensor]:
        segments = torch.cat([torch.full((len(texts[n]),), at + 1) for at, n in enumerate(order)])
        return {"input_ids": torch.cat([texts[n] for n in order])[None], "segments": segments[None]}

    assert _of(pack([3, 1, 2])) == [tuple(texts[n].tolist()) for n in (3, 1, 2)]


def test_whatever_a_step_keeps_is_put_back() -> None:
    """Weights, gradients, modes, AdamW's state, a schedule, a counter, a list, random numbers, an iterator's place."""
    torch.manual_seed(2)
    model = Plain()
    optimizer = adamw(model, 1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    losses: list[float] = []
    count = 0

    def step(batch: tuple[Tensor, Tensor]) -> None:
        nonlocal count
        count += 1
        _, loss = model(*batch)
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))

    def state() -> Any:
        return copy.deepcopy(
            (model.state_dict(), optimizer.state_dict(), schedule.state_dict(), losses, count, torch.get_rng_state())
        )

    batches = windows()
    for before in (0, 3):
        training = Training(model.train(), iter(batches), step, optimizer)
        for batch in batches[:before]:
            step(batch)
        there = state()
        examine(training)
        again = state()
        torch.testing.assert_close(again, there, rtol=0, atol=0)
        assert all(p.grad is None for p in model.parameters())
        assert torch.equal(batches[0][0], next(iter(training.batches))[0])


def test_what_a_step_raises_is_raised() -> None:
    """Where no finding explains it."""
    training = plain(batches=[("not", "tensors")] * 4)
    with pytest.raises(AttributeError):
        examine(training)
