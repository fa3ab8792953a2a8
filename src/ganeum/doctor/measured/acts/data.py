"""Batches: kept, fetched ahead, without empty columns, larger, sorted by length."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ganeum.doctor.measured import tensors
from ganeum.doctor.measured.acts.applicable import NotApplicable
from ganeum.doctor.measured.ours import Cut, Ours
from ganeum.doctor.measured.tensors import IGNORED
from ganeum.doctor.measured.training import Training
from ganeum.doctor.measured.untouched import outcome
from ganeum.hardware import machine

KEPT, KEPT_BYTES, KEPT_S = 64, 256 << 20, 3.0  # batches, of so much memory, fetched in so much time
WINDOW = 16  # batches whose rows are sorted together
SOURCE = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
TARGET = ("labels", "decoder_input_ids", "decoder_attention_mask")


@dataclass(frozen=True)
class Kept:
    """Batches that lie in memory; a step gets containers of its own each time, which it may take apart."""

    batches: Sequence[Any]

    def __iter__(self) -> Iterator[Any]:
        return map(copied, self.batches)


def kept_batches(training: Training) -> Training:
    """The first batches, again and again: nothing is fetched, tokenised or put together any more."""
    kept: list[Any] = []
    held, began = 0, time.perf_counter()
    for batch in training.batches:
        if isinstance(training, Ours) and training.config is not None:
            size = training.config.train.micro_batch_size
            assert size != "auto", "resolved before"
            batch = Cut.of(batch, size)
        kept.append(batch)
        held += tensors.size_bytes(batch)
        if len(kept) == KEPT or held > KEPT_BYTES or time.perf_counter() - began > KEPT_S:
            break
    if not kept:
        raise NotApplicable("there are no batches")
    return replace(training, batches=Kept(kept))


@dataclass(frozen=True)
class Ahead:
    """Batches that a thread fetches while a step computes, ``depth`` of them at most, in their order."""

    batches: Iterable[Any]
    depth: int = 2

    def __iter__(self) -> Iterator[Any]:
        ready: queue.Queue[tuple[str, Any]] = queue.Queue(self.depth)
        over = threading.Event()

        def put(kind: str, value: Any) -> None:
            while not over.is_set():
                try:
                    return ready.put((kind, value), timeout=0.1)
                except queue.Full:
                    continue

        def fetch() -> None:
            try:
                for batch in self.batches:
                    put("batch", batch)
                    if over.is_set():
                        return
                put("end", None)
            except BaseException as error:
                put("error", error)

        threading.Thread(target=fetch, daemon=True).start()
        try:
            while True:
                kind, value = ready.get()
                if kind == "error":
                    raise value
                if kind == "end":
                    return
                yield value
        finally:
            over.set()


def fetched_ahead(training: Training) -> Training:
    """The next batch is fetched while a step computes."""
    return replace(training, batches=Ahead(training.batches))


def loader_workers(training: Training) -> Training:
    """torch's DataLoader with a few processes that stay: one or two, fewer than there are cores."""
    loader = training.batches
    if not isinstance(loader, DataLoader):
        raise NotApplicable("the batches do not come from torch's DataLoader")
    workers = max(1, min(4, machine.cores() - 1))
    if loader.num_workers == workers and loader.persistent_workers:
        raise NotApplicable(f"it has {workers} workers that stay already")
    if isinstance(loader.dataset, IterableDataset):
        raise NotApplicable("a stream would be read by each worker as a whole")
    sampling: dict[str, Any] = (
        {"batch_size": None, "sampler": loader.sampler}
        if loader.batch_sampler is None
        else {"batch_sampler": loader.batch_sampler}
    )
    return replace(
        training,
        batches=DataLoader(
            loader.dataset,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            generator=loader.generator,
            worker_init_fn=loader.worker_init_fn,
            num_workers=workers,
            persistent_workers=True,
            **sampling,
        ),
    )


def full_columns(batch: Any, pad: int | None = None) -> dict[str, int]:
    """For each tensor (B, T) of a batch that lies along a text, how many columns hold something in any row.

    What an attention mask, or labels beside it, hold on to is kept; columns at the right only, so that positions stay.
    Without a mask a column is empty where every id is ``pad`` and no label counts.
    """
    found = {name: t for name, t in tensors.each(batch) if t.dim() == 2}
    mask, labels, ids = tensors.mask(batch), tensors.labels(batch), tensors.ids(batch)
    kept: dict[str, int] = {}
    counts = None if labels is None else _last(labels != IGNORED)
    if ids is not None:
        if mask is not None and mask.shape == ids.shape:
            last = _last(mask != 0)
        elif pad is not None:
            last = _last(ids != pad)
        else:
            last = ids.size(1)
        together = labels is not None and labels.shape == ids.shape and "decoder_input_ids" not in found
        if together and counts is not None:
            last = max(last, counts)
        for name, tensor in found.items():
            if tensor.shape == ids.shape and (name not in TARGET or (together and tensor is labels)):
                kept[name] = max(last, 1)
        if not together and labels is not None and counts is not None:
            decoder = found.get("decoder_attention_mask")
            last = max(counts, 0 if decoder is None else _last(decoder != 0), 1)
            kept |= {n: last for n, t in found.items() if t.shape == labels.shape and (n in TARGET or t is labels)}
    return kept


def _last(there: Tensor) -> int:
    """Columns up to the last in which something is."""
    columns = there.any(0).nonzero()
    return int(columns[-1]) + 1 if len(columns) else 0


def cut(batch: Any, pad: int | None = None) -> Any:
    """A batch without the columns at its right end in which every row is padding."""
    kept = full_columns(batch, pad)
    return tensors.mapped(
        batch, lambda name, t: t[:, : kept[name]].contiguous() if name in kept and t.dim() == 2 else t
    )


def empty_share(batch: Any, pad: int | None = None) -> float:
    """The share of places in columns that :func:`cut` takes away."""
    before, after = (sum(t.numel() for _, t in tensors.each(b) if t.dim() == 2) for b in (batch, cut(batch, pad)))
    return 1 - after / before if before else 0.0


@dataclass(frozen=True)
class Changed:
    """Every batch as a function makes it."""

    batches: Iterable[Any]
    change: Any

    def __iter__(self) -> Iterator[Any]:
        return (self.change(batch) for batch in self.batches)


def cut_padding(training: Training) -> Training:
    """Columns that are padding in every row are cut off, at the right; loss and gradient are compared first."""
    pad = getattr(training.tokenizer, "pad_token_id", None)
    batch = next(iter(training.batches))
    if isinstance(training, Ours) or not empty_share(batch, pad):
        raise NotApplicable("no column at the right end is padding in every row")
    with nothing_dropped(training):
        with_it, without = outcome(training, copied(batch)), outcome(training, cut(copied(batch), pad))
    if not with_it.like(without, 1e-2):
        raise NotApplicable(f"something is learnt from these columns: loss {with_it.loss} becomes {without.loss}")
    return replace(training, batches=Changed(training.batches, lambda one: cut(one, pad)))


def copied(batch: Any) -> Any:
    """In containers of its own: a step may take a batch apart, unless it is one of ours."""
    return batch if hasattr(batch, "micro_batches") else tensors.mapped(batch, lambda _, tensor: tensor)


@contextmanager
def nothing_dropped(training: Training) -> Iterator[None]:
    """Dropout off inside, wherever a module keeps a share of it, so that two shapes can be compared."""
    before = [
        (module, name, value)
        for module in training.model.modules()
        for name, value in vars(module).items()
        if isinstance(value, float) and ("drop" in name or (name == "p" and isinstance(module, torch.nn.Dropout)))
    ]
    for module, name, _ in before:
        setattr(module, name, 0.0)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def doubled(training: Training) -> Training:
    """Two batches in one."""
    return _together(training, 2)


def quadrupled(training: Training) -> Training:
    """Four batches in one."""
    return _together(training, 4)


def _together(training: Training, count: int) -> Training:
    if isinstance(training, Ours):
        raise NotApplicable("a run of ours has its micro-batch by a key")
    some = [batch for batch, _ in zip(training.batches, range(count), strict=False)]
    try:
        tensors.merged(some)
    except (ValueError, TypeError) as error:
        raise NotApplicable(str(error)) from error

    def larger() -> Iterator[Any]:
        waiting: list[Any] = []
        for batch in training.batches:
            waiting.append(batch)
            if len(waiting) == count:
                yield tensors.merged(waiting)
                waiting = []

    if len(some) < count:
        raise NotApplicable(f"there are fewer than {count} batches")
    return replace(training, batches=_Again(larger))


@dataclass(frozen=True)
class _Again:
    """What a function gives anew each time."""

    make: Any

    def __iter__(self) -> Iterator[Any]:
        return iter(self.make())


def _rows(some: Tensor, _name: str, tensor: Tensor) -> Tensor:
    return tensor[some]


def sorted_rows(training: Training) -> Training:
    """Rows of a few batches sorted by length and dealt out anew, so that rows of a batch are alike; then cut."""
    first = next(iter(training.batches))
    if isinstance(training, Ours) or (mask := tensors.mask(first)) is None:
        raise NotApplicable("no mask says how long rows are")
    rows = len(mask)

    def sort(batches: list[Any]) -> Iterator[Any]:
        whole = tensors.merged(tensors.widened(batches))
        kept = tensors.mask(whole)
        assert kept is not None
        order = kept.sum(1).argsort(stable=True)
        parts = list(torch.split(order, rows))
        for place in torch.randperm(len(parts)).tolist():  # else every few batches would begin with the shortest
            yield cut(tensors.mapped(whole, partial(_rows, parts[place])))

    def dealt() -> Iterator[Any]:
        waiting: list[Any] = []
        for batch in training.batches:
            waiting.append(batch)
            if len(waiting) == WINDOW:
                yield from sort(waiting)
                waiting = []
        if waiting:
            yield from sort(waiting)

    try:
        list(sort([batch for batch, _ in zip(training.batches, range(WINDOW), strict=False)]))
    except (ValueError, TypeError) as error:
        raise NotApplicable(str(error)) from error
    return replace(training, batches=_Again(dealt))
