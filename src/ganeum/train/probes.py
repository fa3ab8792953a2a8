"""What a calibration times: the modules of a step, each at a few sizes, run as training runs them.

Beside each stands how much of every kind of work is in it (:mod:`ganeum.plan.time.loads`); how the times become rates
is ``calibrate.py``'s.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganeum.config.schema import Model, Train
from ganeum.data.batch import WindowBatch
from ganeum.hardware.device import Device, Kind
from ganeum.models.gpt import GPT
from ganeum.plan.architecture import ours
from ganeum.plan.execution import LOSS_CHUNK, Execution, Optimizer, Precision
from ganeum.plan.time import loads
from ganeum.step import precision as precisions
from ganeum.step.loss import linear_cross_entropy, token_nats
from ganeum.step.optimizer_step import OptimizerStep

# (sequences, tokens, width, heads): few and many tokens, narrow and wide, short and long contexts, apart from each
# other, so that every kind of work is most of the time somewhere.
BLOCKS: dict[Kind, tuple[tuple[int, int, int, int], ...]] = {
    "cpu": (
        (8, 32, 64, 2),
        (32, 64, 64, 1),
        (4, 256, 128, 4),
        (2, 1024, 128, 2),
        (2, 256, 256, 4),
        (1, 1024, 256, 4),
        (2, 512, 256, 8),
        (2, 64, 768, 12),
        (4, 128, 512, 8),
    ),
    "cuda": (
        (8, 128, 256, 4),
        (8, 1024, 256, 4),
        (2, 4096, 512, 8),
        (8, 1024, 768, 12),
        (1, 8192, 768, 12),
        (4, 512, 1536, 12),
        (8, 1024, 1536, 24),
        (4, 1024, 2048, 16),
    ),
}
DROPPED = ((8, 32, 64, 2), (32, 64, 64, 1), (4, 256, 128, 4), (1, 1024, 128, 2), (2, 256, 256, 8), (2, 64, 768, 12))
# (tokens, vocabulary, width)
LOSSES: dict[Kind, tuple[tuple[int, int, int], ...]] = {
    "cpu": ((512, 64, 64), (512, 1024, 128), (512, 4096, 64), (512, 8192, 256), (256, 1024, 768), (512, 32768, 128)),
    "cuda": ((2048, 1024, 256), (2048, 8192, 768), (4096, 50304, 768), (8192, 32768, 256), (2048, 4096, 2048)),
}
# (layers, width, vocabulary)
UPDATES: tuple[tuple[int, int, int], ...] = ((4, 64, 64), (2, 256, 8192), (1, 384, 64))
OPTIMIZERS: tuple[Optimizer, ...] = ("adamw", "muon", "sgd", "adafactor")


@dataclass(frozen=True)
class Probe:
    """One thing to time.

    Attributes:
        groups: what its times count for.
        amounts: work in each of them.
        run: does it once and gives the seconds of each group.
        others: what else is in it, which has groups of its own; its time is taken off.
    """

    groups: tuple[str, ...]
    amounts: dict[str, float]
    run: Callable[[], list[float]]
    others: tuple[loads.Load, ...] = ()


def of(device: Device, where: torch.device) -> Iterator[Probe]:
    """Everything that a step on ``device`` can consist of, at a few sizes each."""
    formats: list[Precision] = ["fp32"]
    if device.kind == "cuda" and device.peak("tf32"):
        formats.append("tf32")
    if device.fast_precision != "fp32":
        formats.append(device.fast_precision)
    for precision in formats:
        for style in ("gpt2", "modern"):
            for sizes in BLOCKS[device.kind]:
                yield from _halves(style, sizes, precision, where)
            for sizes in DROPPED if device.kind == "cpu" else ():
                yield from _halves(style, sizes, precision, where, dropout=0.1)
        for lost in LOSSES[device.kind]:
            yield from _loss(lost, precision, where)
        yield from _updates("muon", precision, where)
    for lost in LOSSES[device.kind]:
        yield from _embedding(lost, where)
    for optimizer in OPTIMIZERS:
        if optimizer != "muon":
            yield from _updates(optimizer, "fp32", where)
    yield _accumulation(where)
    yield _whole_step(where)
    if device.kind == "cpu":
        yield from _dropout(where)


def _halves(
    style: Literal["gpt2", "modern"],
    sizes: tuple[int, int, int, int],
    precision: Precision,
    where: torch.device,
    dropout: float = 0.0,
) -> Iterator[Probe]:
    """A block's attention and its MLP, each with its norm and its sum, as models/gpt.py has them; with dropout the
    attention alone, which is another kernel then."""
    B, T, C, H = sizes
    model = Model(style=style, n_layer=1, n_head=H, n_embd=C, block_size=T, vocab_size=64, dropout=dropout)
    network = GPT(model).to(where)
    block: Any = network.blocks[0]
    rotation = None if network.rotary is None else network.rotary(0, T)
    x = torch.randn(B, T, C, device=where, requires_grad=True)
    d = torch.ones_like(x)
    execution = _execution(where, precision, B, T)
    parts = ours.architecture(model).blocks[0]

    def timed(half: Callable[[Tensor], Tensor]) -> Callable[[], list[float]]:
        def run() -> list[float]:
            x.grad = None
            block.zero_grad(set_to_none=True)
            precisions.apply(precision)
            watch = Watch(where)
            with precisions.autocast(precision, where):
                y = x + half(x)
            watch.mark()
            y.backward(d)
            watch.mark()
            return watch.seconds()

        return run

    attend = timed(lambda x: block.attention(block.norm_1(x), rotation, None))
    if dropout:
        halves = {"dropped attention": (loads.attention_half(parts, execution, dropped=True), attend)}
    else:
        halves = {
            "attention": (loads.attention_half(parts, execution), attend),
            "mlp": (loads.mlp_half(parts, execution), timed(block.feed_forward)),
        }
    for name, (amounts, run) in halves.items():
        yield Probe(tuple(loads.group(parts, execution, name, way) for way in ("forward", "backward")), amounts, run)


def _loss(sizes: tuple[int, int, int], precision: Precision, where: torch.device) -> Iterator[Probe]:
    N, V, C = sizes
    architecture = ours.architecture(Model(n_layer=1, n_head=1, n_embd=C, block_size=N, vocab_size=V))
    hidden = torch.randn(N, C, device=where, requires_grad=True)
    weight = torch.randn(architecture.rows, C, device=where, requires_grad=True)
    targets = torch.randint(V, (N,), device=where)
    given: dict[str, Any] = {
        "vocab_size": V,
        "chunk": LOSS_CHUNK[_kind(where)],
        "dtype": precisions.COMPUTE_DTYPE[precision],
    }

    def training() -> None:
        hidden.grad = weight.grad = None
        linear_cross_entropy(hidden, weight, targets, **given).backward()

    def evaluation() -> None:
        token_nats(hidden, weight, targets, **given)

    for purpose, once in (("training", training), ("evaluation", evaluation)):
        execution = _execution(where, precision, 1, N, purpose=purpose)
        load = loads.loss(architecture, execution)
        yield _probe(load, once, precision, where)


def _embedding(sizes: tuple[int, int, int], where: torch.device) -> Iterator[Probe]:
    """Looked up; in training with the gradient, which is as large as the table and added to the output layer's."""
    N, V, C = sizes
    architecture = ours.architecture(Model(n_layer=1, n_head=1, n_embd=C, block_size=N, vocab_size=V))
    weight = torch.randn(architecture.rows, C, device=where, requires_grad=True)
    tokens, d, of_head = torch.randint(V, (N,), device=where), torch.randn(N, C, device=where), torch.randn_like(weight)

    def forward() -> Tensor:
        return F.embedding(tokens, weight)

    def training() -> None:
        weight.grad = of_head
        forward().backward(d)

    for purpose, once in (("training", training), ("inference", forward)):
        load = loads.embedding(architecture, _execution(where, "fp32", 1, N, purpose=purpose))
        yield _probe(load, once, "fp32", where)


def _updates(optimizer: Optimizer, precision: Precision, where: torch.device) -> Iterator[Probe]:
    """Clipping and the update of a small model, as step/optimizer_step.py has them."""
    for layers, width, vocab_size in UPDATES:
        model = Model(n_layer=layers, n_head=1, n_embd=width, block_size=32, vocab_size=vocab_size)
        train = Train(batch_size=1, micro_batch_size=1, optimizer=optimizer)
        step = OptimizerStep(GPT(model).to(where), train, where, precision=precision)
        for parameter in step.parameters:
            parameter.grad = 1e-3 * torch.randn_like(parameter)
        bad, one = torch.zeros((), dtype=torch.bool, device=where), torch.ones((), device=where)

        def once(step: OptimizerStep = step, bad: Tensor = bad, one: Tensor = one) -> None:
            with torch.no_grad():
                norm = nn.utils.get_total_norm([p.grad for p in step.parameters if p.grad is not None])
                step.optimizer.step(1e-6, one * norm.clamp_min(1.0), bad)

        execution = _execution(where, precision, 1, 32, optimizer=optimizer)
        yield _probe(loads.update(ours.architecture(model), execution), once, precision, where)


def _whole_step(where: torch.device) -> Probe:
    """A step of a model so small that what is around its modules is a part of the time."""
    B, T = 4, 16
    model = Model(n_layer=2, n_head=1, n_embd=32, block_size=T, vocab_size=64)
    train = Train(batch_size=B, micro_batch_size=B)
    step = OptimizerStep(GPT(model).to(where), train, where)
    tokens = torch.randint(64, (B, T), device=where)
    every = loads.of(ours.architecture(model), _execution(where, "fp32", B, T))
    others = tuple(load for load in every if load.group != "step")
    load = next(load for load in every if load.group == "step")
    probe = _probe(load, lambda: step.on(WindowBatch(tokens, tokens), step=0, learning_rate=1e-6), "fp32", where)
    return replace(probe, others=others)


def _accumulation(where: torch.device) -> Probe:
    """A second micro-batch's gradients added to the first one's."""
    total, more = torch.zeros(1 << 22, device=where), torch.ones(1 << 22, device=where)
    return _probe(loads.Load("accumulate", {"weights": float(len(total))}), lambda: total.add_(more), "fp32", where)


def _dropout(where: torch.device) -> Iterator[Probe]:
    """What a layer gives, dropped before it is added to the stream; forward and backward."""
    for rows, width in ((256, 64), (2048, 128), (1024, 768)):
        x = torch.randn(rows, width, device=where, requires_grad=True)

        def once(x: Tensor = x) -> None:
            x.grad = None
            F.dropout(x, 0.1).backward(x.detach())

        yield _probe(loads.Load("dropout", {"calls": 1.0, "numbers": float(x.numel())}), once, "fp32", where)


def _probe(load: loads.Load, once: Callable[[], object], precision: Precision, where: torch.device) -> Probe:
    def run() -> list[float]:
        precisions.apply(precision)
        watch = Watch(where)
        once()
        watch.mark()
        return watch.seconds()

    return Probe((load.group,), load.amounts, run)


def _execution(where: torch.device, precision: Precision, sequences: int, length: int, **more: Any) -> Execution:
    kind = _kind(where)
    given: dict[str, Any] = {"kind": kind, "precision": precision, "loss_chunk": LOSS_CHUNK[kind]}
    return Execution(micro_batch_size=sequences, length=length, **given | more)


def _kind(where: torch.device) -> Kind:
    return "cuda" if where.type == "cuda" else "cpu"


class Watch:
    """Seconds between marks: on a GPU of its own work, between events in its queue; else on this process's clock."""

    def __init__(self, where: torch.device) -> None:
        self.cuda = where.type == "cuda"
        # One thread's own time does not run while other programs do; Windows counts it in steps of 16 ms.
        own = torch.get_num_threads() == 1 and sys.platform != "win32"
        self.clock = time.process_time if own else time.perf_counter
        self.marks: list[Any] = []
        self.mark()

    def mark(self) -> None:
        if self.cuda:
            self.marks.append(torch.cuda.Event(enable_timing=True))
            self.marks[-1].record()
        else:
            self.marks.append(self.clock())

    def seconds(self) -> list[float]:
        """Of each stretch between two marks."""
        if not self.cuda:
            return [after - before for before, after in pairwise(self.marks)]
        torch.cuda.synchronize()
        return [before.elapsed_time(after) / 1e3 for before, after in pairwise(self.marks)]
