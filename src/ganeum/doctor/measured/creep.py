"""What steps of a training leave behind: graphs that stay, tensors that pile up, memory that grows; and parameters that
get no gradient, or are there twice.

What the backward pass needs is kept by the graph and is no object of Python's. So every tensor that is saved for it is
wrapped (``torch.autograd.graph.saved_tensors_hooks``): a wrapper that is still there after a step is a graph that is
still there, to the byte and without noise. Runs in a process of its own.
"""

from __future__ import annotations

import gc
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice, pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ganeum.doctor.measured import generators, tensors
from ganeum.doctor.measured.grown import MOST_NODES, Grown, held_bytes, nodes
from ganeum.doctor.measured.inside import Inside
from ganeum.doctor.measured.training import Training
from ganeum.doctor.memory import growth, snapshot
from ganeum.doctor.memory.holder import Held, holder

WATCHED = 12  # steps with wrapped tensors
NONZERO = 3  # gradients of each parameter that are looked at
FURTHER, FURTHER_S = 4, 10.0
FIRST_COUNT = 4  # the step after which tensors are first counted
LEAST_NUMBERS = 1024  # of a parameter that is compared with others
EVENTS = 200_000  # of torch's own record of a step


Kind: TypeAlias = tuple[tuple[int, ...], str, bool]  # shape, dtype, whether it has a graph
Early: TypeAlias = dict[int, tuple["weakref.ref[Tensor]", Kind]]  # by identity


def of_subject(what: Mapping[str, Any], steps: int, seconds: float) -> dict[str, Any]:
    """:func:`watch` of what a worker is told to build."""
    inside = Inside()
    inside.build(what)
    return watch(inside.training, steps=steps, seconds=seconds)


def watch(training: Training, *, steps: int, seconds: float) -> dict[str, Any]:
    """Takes steps of it, which really learn.

    Args:
        steps: after the watched ones, whose memory is measured; where it grows and nothing was seen that does it, on
            the same batches again and again, ``FURTHER`` times.
        seconds: that these take at most; as many and ``FURTHER_S`` more where they are taken again.

    Returns:
        device; kept: bytes of graphs after each watched step; piling: tensors that became more, {shape, dtype, graph,
        nodes, a_step, bytes, held_by, at_most}; hooks: modules that each step leaves more hooks on, and how many;
        grown: what :class:`~ganeum.doctor.measured.grown.Grown` finds; held: bytes after each further step (a GPU's
        allocator, else the processes), without those on batches of which none had been there before, where they were
        taken again; parameters: {total, dead, still, twice, tied}, names and bytes; snapshot: a GPU's own record of one
        step.
    """
    back = generators.kept(training.batches)
    generators.seed()
    batches = _endless(training)
    model = training.model
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    parameters = _parameters(model)
    before = _hooks(model)
    kept, gradients, early, late, grown = _watched(training, batches, model)
    hooks = {name: count / WATCHED for name, count in (_hooks(model) - before).items() if count >= WATCHED}
    piling = list(_piling(early, late))
    del early, late, batches  # their processes end
    piling, grown = _still(training, back, piling, grown)
    held = _held(training, back, device, steps, seconds, again=not piling)
    return {
        "device": device.type,
        "kept": kept,
        "piling": piling,
        "hooks": hooks,
        "grown": grown,
        "held": held,
        "parameters": {**parameters, **gradients},
        "snapshot": _recorded(training, _endless(training), device) if device.type == "cuda" else None,
    }


def _again(training: Training, back: Sequence[Callable[[], None]], count: int) -> Iterator[None]:
    """So many steps from the first batch on, in the order in which they came before."""
    generators.seed()
    for set_back in back:
        set_back()
    for batch in islice(_endless(training), count):
        training.step(batch)
        del batch
        yield


def _still(
    training: Training, back: Sequence[Callable[[], None]], piling: list[dict[str, Any]], grown: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Those that go on with the same batches once more: a data set that keeps what it has read does so once."""
    if not piling and grown["tensors"] is None and grown["graph"] is None:
        return piling, grown

    def there() -> tuple[Counter[Kind], int, int]:
        gc.collect()
        live = _tensors()
        return Counter(map(_kind, live.values())), held_bytes(live), nodes(*live.values())

    kinds, size, count = there()
    for _ in _again(training, back, WATCHED):
        pass
    more, larger, longer = there()
    half = WATCHED / 2
    kept = [one for one in piling if (more - kinds)[tuple(one["shape"]), one["dtype"], one["graph"]] >= half]
    if (one := grown["tensors"]) is not None and larger - size < half * one["bytes"]:
        grown = grown | {"tensors": None}
    if (one := grown["graph"]) is not None and longer - count < min(half * one["nodes"], MOST_NODES - count):
        grown = grown | {"graph": None}
    return kept, grown


def _held(
    training: Training,
    back: Sequence[Callable[[], None]],
    device: torch.device,
    steps: int,
    seconds: float,
    *,
    again: bool,
) -> list[int]:
    """Bytes after each step; where they grow and it is to be done again, after each on batches that were there before.

    New batches fill caches for as long as they are unlike those before them: a library keeps code for each new shape,
    an allocator finds new holes, a data set may keep what it has read. On the same batches none of that grows.
    """

    def taken(count: int, end: float) -> Iterator[int]:
        process = Held()
        for _ in _again(training, back, count):
            yield torch.cuda.memory_allocated(device) if device.type == "cuda" else process.bytes()
            if time.perf_counter() > end:
                return

    first = list(taken(steps, time.perf_counter() + seconds))
    if not (again and _grows(first)):
        return first
    end = time.perf_counter() + FURTHER_S + seconds
    return [held for _ in range(FURTHER) if time.perf_counter() < end for held in taken(len(first), end)]


def _grows(sizes: Sequence[int]) -> bool:
    found = growth.growth(range(len(sizes)), sizes)
    return found is not None and found.lasting


def _hooks(model: nn.Module) -> Counter[str]:
    """How many functions each module calls before and after its own, by its name."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return Counter(
        {name: sum(len(getattr(module, kind, ())) for kind in kinds) for name, module in model.named_modules()}
    )


class _Saved:
    """A tensor that a graph keeps, alive as long as that needs it."""

    __slots__ = ("__weakref__", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _watched(
    training: Training, batches: Iterator[Any], model: nn.Module
) -> tuple[list[int], dict[str, Any], Early, dict[int, Tensor], dict[str, Any]]:
    """Some steps → bytes that graphs hold after each, what of the parameters got gradients, tensors early and late, and
    what has grown."""
    alive: weakref.WeakSet[_Saved] = weakref.WeakSet()
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}

    def pack(tensor: Tensor) -> _Saved:
        saved = _Saved(tensor.detach())  # with its graph it would keep itself: its node keeps what is returned here
        alive.add(saved)
        return saved

    kept: list[int] = []
    early: Early = {}
    grown = Grown()
    gc.collect()
    gc.freeze()  # what is there already: collecting takes a tenth of the time, and only what is new is counted
    with ExitStack() as stack:
        stack.callback(gc.unfreeze)
        gradients = stack.enter_context(_gradients(model))
        for step in range(WATCHED):
            batch = next(batches)
            size = tensors.size_bytes(batch)
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
                training.step(batch)
            del batch
            gc.collect()
            storages = {s.tensor.untyped_storage().data_ptr(): s.tensor.untyped_storage().nbytes() for s in alive}
            kept.append(sum(size for at, size in storages.items() if at not in own))
            ours = {id(saved.tensor) for saved in alive}
            late = {at: one for at, one in _tensors().items() if at not in ours}
            if step + 1 == FIRST_COUNT:
                early = {at: (weakref.ref(one), _kind(one)) for at, one in late.items()}
            if step + 1 >= FIRST_COUNT:
                grown.look(late, size)
            if step + 1 < WATCHED:
                del late
    return kept, gradients.found(), early, late, grown.found(late, (kept, early))


class _Gradients:
    """Which parameters got a gradient, and whose was more than nothing."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._got: Counter[str] = Counter()
        self._some: set[str] = set()

    def note(self, name: str, parameter: Tensor) -> None:
        self._got[name] += 1
        if (
            self._got[name] <= NONZERO
            and name not in self._some
            and parameter.grad is not None
            and bool(parameter.grad.any())
        ):
            self._some.add(name)

    def found(self) -> dict[str, Any]:
        """dead: those that need one and got none; still: whose is all zeros."""
        wanted = {name: _bytes(p) for name, p in self._model.named_parameters() if p.requires_grad}
        return {
            "dead": {name: size for name, size in wanted.items() if name not in self._got},
            "still": {name: size for name, size in wanted.items() if name in {*self._got} - self._some},
        }


@contextmanager
def _gradients(model: nn.Module) -> Iterator[_Gradients]:
    found = _Gradients(model)
    handles = [
        parameter.register_post_accumulate_grad_hook(partial(found.note, name))  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _parameters(model: nn.Module) -> dict[str, Any]:
    """Bytes of all; names of those that share a storage, and of those that hold the same numbers in two."""
    tied: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        tied.setdefault(id(parameter), []).append(name)
    groups: dict[tuple[Any, ...], list[tuple[str, Tensor]]] = {}
    for name, parameter in model.named_parameters():
        if parameter.numel() >= LEAST_NUMBERS and parameter.is_floating_point():
            with torch.no_grad():
                low, high = parameter.aminmax()
                total = float(parameter.double().sum())
            if bool(low < high):  # all ones are not copies of each other
                groups.setdefault((tuple(parameter.shape), parameter.dtype, total), []).append((name, parameter))
    twice = [
        {"names": [first[0], other[0]], "bytes": _bytes(other[1]), "shape": list(other[1].shape)}
        for alike in groups.values()
        for first, other in pairwise(alike)
        if torch.equal(first[1], other[1])
    ]
    return {
        "total": sum(map(_bytes, model.parameters())),
        "tied": [names for names in tied.values() if len(names) > 1],
        "twice": twice,
    }


def _tensors() -> dict[int, Tensor]:
    """All that Python can reach, by identity; held no longer than the caller does."""
    return {id(one): one for one in gc.get_objects() if issubclass(type(one), Tensor)}


def _piling(early: Early, late: Mapping[int, Tensor]) -> Iterator[dict[str, Any]]:
    """Kinds of tensors of which each step left at least one more; what took the place of others is no more."""
    between = WATCHED - FIRST_COUNT
    gc.collect()
    stayed = {at for at, (tensor, _) in early.items() if tensor() is not None}
    gone = Counter(kind for at, (_, kind) in early.items() if at not in stayed)
    new = [tensor for at, tensor in late.items() if at not in stayed and tensor.numel() > 0]
    kinds = Counter(_kind(tensor) for tensor in new) - gone
    for (shape, dtype, graph), count in kinds.most_common():
        if count < between:
            continue
        same = [tensor for tensor in new if _kind(tensor) == (shape, dtype, graph)]
        held = holder(same[-1], least=between, ours=(new, same, late))
        yield {
            "nodes": nodes(same[-1]),
            "shape": list(shape),
            "dtype": dtype,
            "graph": graph,
            "a_step": count / between,
            "bytes": count * _bytes(same[-1]) / between,
            "held_by": held.told,
            "at_most": held.most,
        }


def _kind(tensor: Tensor) -> Kind:
    return tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.grad_fn is not None


def _recorded(training: Training, batches: Iterator[Any], device: torch.device) -> dict[str, Any]:
    """A step as torch records a GPU's memory itself, read by :mod:`ganeum.doctor.memory.snapshot`."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    torch.cuda.memory._record_memory_history(max_entries=EVENTS, stacks="python", device=device)
    try:
        training.step(next(batches))
        torch.cuda.synchronize(device)
        told = torch.cuda.memory._snapshot()
    finally:
        torch.cuda.memory._record_memory_history(enabled=None, device=device)
    found = snapshot.read(told, device.index or 0)
    return {
        **vars(found),
        "at_peak": dict(found.at_peak),
        "counted_requested": torch.cuda.memory_stats(device)["requested_bytes.all.peak"],
        "counted_allocated": torch.cuda.max_memory_allocated(device),
        "counted_reserved": torch.cuda.memory_reserved(device),
    }


def _endless(training: Training) -> Iterator[Any]:
    while True:
        empty = True
        for batch in training.batches:
            empty = False
            yield batch
        if empty:
            return


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
