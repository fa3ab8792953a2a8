"""Trainings that learn the wrong thing are seen by their own steps, and honest ones are left alone."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
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
    computed_twice,
    frozen_encoder,
    padded,
    pairs,
    plain,
    sharpness_aware,
    theirs,
    warmed,
    warmed_around,
    windows,
    with_experts,
    with_lora,
    without_optimizer,
)  # fmt: skip
from torch import Tensor
from wrong import (
    ByHand,
    Cut,
    EndIsPad,
    NoGrad,
    Squashed,
    Turns,
    all_frozen,
    broken_weight,
    by_length,
    changed,
    clears_each,
    cut_off,
    ending,
    filled,
    frozen,
    gpt2,
    halved,
    not_causal,
    places,
    scaled,
    shifted,
    stray_optimizer,
    two_optimizers,
    without,
)

from ganeum.doctor.causes import causes
from ganeum.doctor.examine import examine
from ganeum.doctor.examine.repeats import _of
from ganeum.doctor.finding import Finding
from ganeum.doctor.measured.training import Training

pytest.importorskip("transformers")


def alarms(training: Training, **settings: Any) -> list[str]:
    return [finding.cause for finding in examine(training, **settings) if finding.is_alarm]


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
    "texts that are cut off": lambda: gpt2(cut_off()),
    "three ways to end": lambda: gpt2(ending(3)),
    "half of it dropped": lambda: gpt2(resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5),
    "a long warm-up": lambda: warmed(10_000),
    "a warm-up of epochs": lambda: warmed(50, every=20),
    "a warm-up that the loop moves on": lambda: warmed_around(10_000),
    "computed twice": computed_twice,
    "lbfgs": asks_again,
    "sharpness-aware": sharpness_aware,
    "without an optimizer": without_optimizer,
    "two optimizers, each cleared when it is needed": two_optimizers,
    "llama on the left": lambda: theirs("llama", tokenizer=Tokens(), batches=padded(left=True)),
    "mixtral": lambda: theirs("mixtral", tokenizer=Tokens()),
    "t5": lambda: theirs("t5", tokenizer=Tokens()),
    "t5, its trained encoder frozen": lambda: theirs("t5", fresh=False, change=frozen_encoder),
    "t5, frozen and handed over": lambda: theirs(
        "t5", fresh=False, change=frozen_encoder, optimizer=lambda m: torch.optim.AdamW(m.parameters(), 1e-3)
    ),
    "t5, its head drawn as large as its class does": lambda: theirs("t5", tie_word_embeddings=False),
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
    "no end of text": ("end_not_learnt", lambda: gpt2(ending())),
    "a softmax too many": ("learning", lambda: plain(model=Squashed())),
    "dropout of what is to be kept": ("learning", lambda: gpt2(resid_pdrop=0.9, embd_pdrop=0.9, attn_pdrop=0.9)),
    "dropout of what is to be kept, t5": ("learning", lambda: theirs("t5", dropout_rate=0.9)),
    "a warm-up of updates by epochs": ("schedule", lambda: warmed(10_000, every=20)),
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
    "one of two optimizers never cleared": ("gradients_kept", lambda: two_optimizers(clears=False)),
    "drawn too large": ("first_loss", lambda: plain(model=scaled(40))),
    "drawn too large by its config": ("first_loss", lambda: gpt2(initializer_range=0.8)),
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


def test_labels_that_are_handed_over_explain_a_low_first_loss() -> None:
    """One fault, told once."""
    given = changed(pairs(), decoder_input_ids=lambda one: one["labels"].clamp_min(PAD))
    assert alarms(theirs("t5", batches=given)) == ["shifted_labels"]


def test_a_schedule_that_was_looked_ahead_is_where_it_was() -> None:
    """And so is the rate that it set."""
    training = warmed(10_000, every=20)
    before = [group["lr"] for group in training.optimizer.param_groups]  # type: ignore[union-attr]
    assert "schedule" in alarms(training)
    assert before == [group["lr"] for group in training.optimizer.param_groups] != [1e-3, 1e-3]  # type: ignore[union-attr]
    assert "schedule" in alarms(training)


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
    phrase = [*(torch.roll(other[0], by, 1) for by in (0, 7, 14)), partly[0][:1]]  # 1 of 13 rows, a licence say
    told = [one for one in examine(Training(Plain(), batches, step), validation=phrase) if one.size == 1 / 13]
    assert ["note"] == [one.severity for one in told]
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
