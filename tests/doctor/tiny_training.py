"""A training of milliseconds, with causes of slowness to put into it, and a process of its own to try it in."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ganeum.doctor.measured.training import Training

T = TypeVar("T")
VOCABULARY, WIDTH, ROWS, COLUMNS = 48, 16, 4, 12


def apart(work: Callable[[], T]) -> T:
    """What ``work`` gives in a forked process, so that whatever it does to torch ends with it."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer: tuple[bool, Any] = (True, work())
        except BaseException:
            answer = (False, traceback.format_exc())
        with os.fdopen(writes, "wb") as file:
            file.write(pickle.dumps(answer))
        sys.stdout.flush()
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as file:
        content = file.read()
    os.waitpid(child, 0)
    fine, value = pickle.loads(content)
    assert fine, value
    return value  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        q, k, v = (t[:, None] for t in self.qkv(x).chunk(3, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0])
        return x + self.down(F.gelu(self.up(x)))


class Tiny(nn.Module):
    """A GPT: ids (B, T) → logits (B, T, V)."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(64, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.around: Callable[..., Any] = lambda block, x: block(x)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        self.saw = {
            "mask": attention_mask is not None,
            "flash": torch.backends.cuda.flash_sdp_enabled(),
            "columns": input_ids.size(1),
            "threads": torch.get_num_threads(),
        }
        x = self.tokens(input_ids) + self.places.weight[: input_ids.size(1)].to(self.tokens.weight.dtype)
        for block in self.blocks:
            x = self.around(block, x)
        return self.head(x)  # type: ignore[no-any-return]


def batches(count: int = 8, *, columns: int = COLUMNS, longest: int = COLUMNS) -> list[dict[str, Tensor]]:
    """Ids with 0 for padding, masks, and labels −100 there; rows of 5 to ``longest`` tokens."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        ids = F.pad(torch.randint(1, VOCABULARY, (ROWS, longest), generator=draw), (0, columns - longest))
        lengths = torch.randint(5, longest + 1, (ROWS, 1), generator=draw)
        lengths[0] = longest
        mask = (torch.arange(columns) < lengths).long()
        found.append({"input_ids": ids * mask, "attention_mask": mask, "labels": torch.where(mask == 1, ids, -100)})
    return found


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


@dataclass
class Sound:
    """The training without a fault, with places where one may be put in.

    Attributes:
        optimizer: makes it from the parameters.
        before, after: called around each step.
        backward: of a loss.
    """

    optimizer: Callable[[Any], Any] = lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True)
    before: Callable[[Training], None] = lambda _: None
    after: Callable[[Training], None] = lambda _: None
    backward: Callable[[Tensor], None] = lambda loss: loss.backward()
    zero: Callable[[Any], None] = lambda optimizer: optimizer.zero_grad()
    data: Any = None
    model: Callable[[], nn.Module] = Tiny

    def build(self) -> Training:
        torch.manual_seed(0)
        model = self.model()
        optimizer = self.optimizer(model.parameters())

        def step(batch: dict[str, Tensor]) -> Tensor:
            self.before(training)
            found = model(batch["input_ids"], attention_mask=batch["attention_mask"])
            logits = found if isinstance(found, Tensor) else found.logits
            loss = loss_of(logits, batch["labels"])
            self.backward(loss)
            optimizer.step()
            self.zero(optimizer)
            self.after(training)
            return loss.detach()

        training = Training(model, self.data if self.data is not None else batches(), step, optimizer)
        return training


def losses(training: Training, count: int = 3) -> list[float]:
    """Of the first steps."""
    found: list[float] = []
    iterator: Iterator[Any] = iter(training.batches)
    for _ in range(count):
        found.append(float(training.step(next(iterator))))
    return found


def saw(name: str, bad: Callable[[Any], bool]) -> Callable[[Training], bool]:
    """Whether the model, in a step, sees what it should not."""

    def found(training: Training) -> bool:
        training.step(next(iter(training.batches)))
        return bad(training.model.saw[name])  # type: ignore[union-attr,index]

    return found


def recomputing() -> Tiny:
    model = Tiny()
    model.around = lambda block, x: checkpoint(block, x, use_reentrant=False)
    return model


def calls(training: Training) -> bool:
    """Whether a block runs more often than once a step."""
    block = training.model.blocks[0]
    before = block.calls
    training.step(next(iter(training.batches)))
    return bool(block.calls > before + 1)


def collects(training: Training) -> bool:
    seen: list[str] = []
    gc.callbacks.append(lambda phase, _: seen.append(phase))
    gc.disable()
    training.step(next(iter(training.batches)))
    gc.callbacks.pop()
    return bool(seen)


def dense() -> list[dict[str, Tensor]]:
    return batches(columns=40)


@pytest.fixture(scope="module", autouse=True)
def loaded() -> Iterator[None]:
    """What torch loads at its first update, before processes are forked."""
    losses(Sound().build(), 1)
    gc.freeze()  # else gc.collect() in a step looks at every test there is
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
