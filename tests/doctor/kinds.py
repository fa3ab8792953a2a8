"""Honest trainings of other kinds, as people write them, and some of their faults: no next token, other losses, other
optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from honest import PAD, Plain, T, Tokens, V, adamw, padded, theirs, windows
from torch import Tensor, nn

from ganeum.doctor.measured.training import Training

MASK = 3


def loop(
    model: nn.Module, batches: Any, loss_of: Callable[[Any], Tensor], made: Any = None, *, parts: int = 1, **more: Any
) -> Training:
    """A loop by hand: each part of a batch by its own loss, averaged."""
    optimizer = adamw(model) if made is None else made

    def step(batch: Any) -> Tensor:
        optimizer.zero_grad()
        for part in batch.chunk(parts) if parts > 1 else [batch]:
            loss = loss_of(part) / parts
            loss.backward()
        optimizer.step()
        return loss

    return Training(model, batches, step, optimizer, **{"tokenizer": Tokens(), "fresh": True, **more})


def rows() -> list[Tensor]:
    return [batch["input_ids"] for batch in padded()]


def next_token(model: nn.Module, x: Tensor) -> Tensor:
    return F.cross_entropy(model(x[:, :-1])[0].flatten(0, 1), x[:, 1:].flatten(), ignore_index=PAD)


def contrastive() -> Training:
    """SimCSE: a text is to be found among the batch's own by its other dropout; the first loss is what it is."""
    model = nn.Sequential(nn.Embedding(V, 32), nn.Dropout(0.1), nn.Linear(32, 32))

    def loss_of(x: Tensor) -> Tensor:
        one, other = (F.normalize(model(x).mean(1), dim=-1) for _ in range(2))
        return F.cross_entropy(one @ other.T / 0.05, torch.arange(len(x)))

    return loop(model, rows(), loss_of)


def distilled() -> Training:
    """Half of it the labels, half a teacher that is sure of itself, in two micro-batches."""
    model, teacher = Plain(), nn.Embedding(V, V)

    def loss_of(x: Tensor) -> Tensor:
        said, y = model(x[:, :-1])[0].flatten(0, 1), x[:, 1:].flatten()
        taught = F.kl_div(said.log_softmax(-1), (5 * teacher(y)).softmax(-1), reduction="batchmean")
        return 0.5 * taught + 0.5 * F.cross_entropy(said, y)

    return loop(model, [x for x, _ in windows()], loss_of, parts=2)


def two_tasks() -> Training:
    """Each with its own backward pass, and one update for both."""
    model = Plain()
    model.kind = nn.Linear(32, 5)
    optimizer = adamw(model)

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        next_token(model, x).backward()
        F.cross_entropy(model.kind(model.wte(x).mean(1)), x[:, 0] % 5).backward()
        optimizer.step()

    return Training(model, rows(), step, optimizer, tokenizer=Tokens(), fresh=True)


def several_ahead() -> Training:
    """The token after the next is predicted first, and then the next."""
    model = Plain()
    model.second = nn.Linear(V, V)

    def loss_of(x: Tensor) -> Tensor:
        said, losses = model(x)[0], []
        for ahead, logits in ((2, model.second(said)), (1, said)):
            wanted = torch.full_like(x, -100)
            wanted[:, :-ahead] = x[:, ahead:]
            losses.append(F.cross_entropy(logits.flatten(0, 1), wanted.flatten()))
        return sum(losses) / 2

    return loop(model, [x for x, _ in windows()], loss_of)


def masters(rate: float = 1e-5) -> Training:
    """A model in bf16, whose weights an optimizer holds in fp32 and writes back."""
    model = Plain().to(torch.bfloat16)
    low = list(model.parameters())
    high = [p.detach().float().requires_grad_() for p in low]
    optimizer = torch.optim.AdamW(high, rate)

    def step(batch: tuple[Tensor, Tensor]) -> None:
        model.zero_grad()
        model(*batch)[1].backward()
        for mine, p in zip(high, low, strict=True):
            mine.grad = p.grad.float()
        optimizer.step()
        with torch.no_grad():
            for mine, p in zip(high, low, strict=True):
                p.copy_(mine)

    return Training(model, windows(), step, optimizer, fresh=True)


def half(rate: float) -> Training:
    """Everything in bf16, the optimizer's weights, too."""
    model = Plain().to(torch.bfloat16)
    return loop(model, windows(), lambda batch: model(*batch)[1], torch.optim.AdamW(model.parameters(), rate))


def warming_up(by_hand: bool) -> Training:
    """Everything in bf16, at the start of a warm-up: its first rates are small on purpose."""
    training = half(0.03)
    rates = None if by_hand else torch.optim.lr_scheduler.OneCycleLR(training.optimizer, 0.03, total_steps=10_000)

    def step(batch: Any, learn: Callable[[Any], Any] = training.step) -> Any:
        if by_hand:
            for group in training.optimizer.param_groups:
                group["lr"] = 1e-5
        loss = learn(batch)
        if rates is not None:
            rates.step()
        return loss

    training.step = step
    return training


def own_rate() -> Training:
    """An optimizer that finds its rate itself: its groups say None."""
    import transformers as hf

    return theirs("t5", fresh=False, optimizer=lambda model: hf.Adafactor(model.parameters(), relative_step=True))


class Masking(Tokens):
    unk_token_id = None  # type: ignore[assignment]


class Filled(nn.Module):
    """What is behind a mask, from both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(V, 32), nn.Embedding(T, 32)
        self.block = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
        self.head = nn.Linear(32, V)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.wte(x) + self.wpe(torch.arange(x.shape[1])), src_key_padding_mask=x == PAD))


def masked(rate: float = 0.15, every: bool = False) -> Training:
    """BERT's task; ``every``: with labels where nothing is masked, too."""
    model = Filled()
    nn.init.normal_(model.head.weight, std=0.02)
    draw = torch.Generator().manual_seed(3)

    def loss_of(x: Tensor) -> Tensor:
        chosen = (torch.rand(x.shape, generator=draw) < rate) & (x != PAD)
        wanted = torch.where(x == PAD if every else ~chosen, -100, x)
        return F.cross_entropy(model(torch.where(chosen, MASK, x)).flatten(0, 1), wanted.flatten())

    return loop(model, rows(), loss_of, tokenizer=Masking())


class Recurrent(nn.Module):
    """``batch_first`` left away: it goes on from row to row."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.wte, self.rnn = nn.Embedding(V, 32), nn.LSTM(32, 32, batch_first=batch_first)
        self.head = nn.Linear(32, V)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.head(self.rnn(self.wte(x))[0]),)


def recurrent(batch_first: bool = True) -> Training:
    model = Recurrent(batch_first)
    return loop(model, rows(), lambda x: next_token(model, x))


class Attending(nn.Module):
    """Attention without a mask among the rows of a batch, each place by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.head = nn.Embedding(V, 32), nn.Linear(32, V)
        self.block = nn.TransformerEncoderLayer(32, 2, 64)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.head(self.block(self.wte(x))),)


def attending() -> Training:
    model = Attending()
    return loop(model, rows(), lambda x: next_token(model, x))


def clipped(when: str, scale: float = 1.0) -> Training:
    """``when``: clipped before or behind the backward pass; ``late``: before the loss scale is taken off."""
    model = Plain()
    optimizer, scaler = adamw(model), torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale > 1)

    def step(batch: tuple[Tensor, Tensor]) -> None:
        optimizer.zero_grad()
        if when == "before":
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.scale(model(*batch)[1]).backward()
        if when == "behind":
            scaler.unscale_(optimizer)
        if when != "before":
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()

    return Training(model, windows(), step, optimizer, fresh=True)


def by_hand_nan() -> Training:
    """A loss by hand whose logarithm is of what may be below 0; its gradient is a number all the same."""
    model = Plain()

    def loss_of(batch: tuple[Tensor, Tensor]) -> Tensor:
        said = model(batch[0])[0].softmax(-1) - 1 / V
        return -said.log().gather(-1, batch[1][..., None]).mean()

    return loop(model, windows(), loss_of)


HONEST: dict[str, Callable[[], Training]] = {
    "contrastive": contrastive,
    "distilled": distilled,
    "two tasks": two_tasks,
    "several tokens ahead": several_ahead,
    "fp32 copies of a bf16 model": masters,
    "bf16 at a large rate": lambda: half(1e-2),
    "bf16 in a warm-up by hand": lambda: warming_up(True),
    "bf16 in a warm-up of one cycle": lambda: warming_up(False),
    "an optimizer that finds its own rate": own_rate,
    "masked": lambda: masked(0.3),
    "masked, some rows without": masked,
    "recurrent": recurrent,
    "clipped": lambda: clipped("behind"),
    "clipped behind the scale": lambda: clipped("behind", 4096.0),
}

FAULTS: dict[str, tuple[str, Callable[[], Training]]] = {
    "labels where nothing is masked": ("shifted_labels", lambda: masked(0.3, every=True)),
    "from row to row": ("causal_leak", lambda: recurrent(batch_first=False)),
    "attention among rows": ("causal_leak", attending),
    "clipped before": ("gradient_norm", lambda: clipped("before")),
    "clipped with its scale": ("gradient_norm", lambda: clipped("late", 4096.0)),
    "bf16 at a small rate": ("pure_half", lambda: half(1e-5)),
    "a loss by hand that is no number": ("loss_nan", by_hand_nan),
}
