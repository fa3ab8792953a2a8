"""Trainings that learn the wrong thing, each with one fault; small ones of honest parts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from honest import END, PAD, Plain, T, Tokens, V, adamw, padded, theirs, windows
from torch import Tensor, nn

from ganeum.doctor.measured.training import Training


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


class Squashed(Plain):
    """A softmax, and cross_entropy, which has one itself."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        said = super().forward(x)[0].softmax(-1)
        return said, F.cross_entropy(said.view(-1, V), y.view(-1))


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


def ending(kinds: int = V) -> list[dict[str, Tensor]]:
    """Texts of different lengths that end in so many different tokens, none of which is the end of a text."""

    def other(ids: Tensor) -> Tensor:
        rows = torch.arange(len(ids))[:, None]
        return torch.where(ids == END, 4 + (ids.clamp_min(0).sum(1, keepdim=True) + rows) % min(kinds, V - 4), ids)

    return changed(padded(), input_ids=lambda one: other(one["input_ids"]), labels=lambda one: other(one["labels"]))


def cut_off() -> list[dict[str, Tensor]]:
    """Every text goes on behind its last token here, and rows are rounded up."""
    rows = [F.pad(x[:, : T - 4], (0, 4)) for x, _ in windows()]
    masks = [(F.pad(torch.ones(len(x), T - 4), (0, 4))).long() for x in rows]
    labels = [torch.where(mask > 0, x, -100) for x, mask in zip(rows, masks, strict=True)]
    names = ("input_ids", "attention_mask", "labels")
    return [dict(zip(names, one, strict=True)) for one in zip(rows, masks, labels, strict=True)]


def by_length() -> list[dict[str, Tensor]]:
    """Every batch of one length, each longer than the one before."""
    found = []
    for length in range(8, 24):
        ids = torch.randint(4, V, (8, length), generator=torch.Generator().manual_seed(length))
        found.append({"input_ids": ids, "labels": ids})
    return found


def two_optimizers(clears: bool = True) -> Training:
    """A generator and its critic: each backward pass of the one leaves gradients in the other, cleared when needed."""
    torch.manual_seed(3)
    maker, critic = nn.Linear(8, 16), nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    critics, its = torch.optim.Adam(critic.parameters()), torch.optim.Adam(maker.parameters())

    def step(real: Tensor) -> None:
        made = maker(torch.randn(len(real), 8))
        if clears:
            critics.zero_grad()
        (critic(made.detach()).square() + (critic(real) - 1).square()).mean().backward()
        critics.step()
        its.zero_grad()
        (critic(made) - 1).square().mean().backward()
        its.step()

    rows = [torch.randn(8, 16, generator=torch.Generator().manual_seed(n)) for n in range(8)]
    return Training(nn.ModuleList([maker, critic]), rows, step, its)
