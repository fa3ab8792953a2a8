"""A forward pass that was seen, run again, on other tokens or with other dropout: nothing is learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ganeum.doctor.examine.seen import Call


class Changed(TorchFunctionMode):
    """Puts other ids in where the embedding at ``place`` looks up ``ids``; notes the logits that a loss is given."""

    def __init__(self, place: int | None, ids: Tensor | None) -> None:
        super().__init__()
        self.place, self.ids, self.at = place, ids, 0
        self.logits: Tensor | None = None
        self.done = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.embedding:
            given = args[0] if args else kwargs["input"]
            if self.ids is not None and self.at == self.place and given.shape == self.ids.shape:
                other = self.ids.to(given.device, given.dtype)
                args, kwargs = ((other, *args[1:]), kwargs) if args else ((), {**kwargs, "input": other})
                self.done = True
            self.at += 1
        elif func is F.cross_entropy:
            given = args[0] if args else kwargs["input"]
            if self.logits is None and isinstance(given, Tensor):
                self.logits = (given.movedim(1, -1) if given.ndim > 2 else given).detach()
        return func(*args, **kwargs)


def again(
    call: Call,
    shape: tuple[int, int],
    *,
    place: int | None = None,
    ids: Tensor | None = None,
    cut: Any = None,
    drawn: int | None = None,
) -> Tensor | None:
    """What the model gives for each place, (B, T, ·) in fp32 on the CPU; None where that cannot be seen.

    Args:
        shape: (B, T), of what is expected.
        place, ids: tokens (B, T) in place of those that the embedding of this place was given.
        cut: a function that makes other arguments of the call's.
        drawn: dropout is left as it is, and drawn from this seed.
    """
    args, kwargs = (call.args, dict(call.kwargs)) if cut is None else cut(call.args, dict(call.kwargs))
    with _quietly(call.model, drawn), Changed(place, ids) as changed:
        output = call.function(*args, **kwargs)
    if ids is not None and not changed.done:
        return None
    b, t = shape
    found = [one for one in _tensors(output) if one.is_floating_point() and one.ndim == 3 and one.shape[:2] == shape]
    logits = changed.logits
    if not found and logits is not None:
        flat = logits.reshape(-1, logits.shape[-1])
        if len(flat) in (b * t, b * (t - 1)):
            found = [flat.view(b, -1, flat.shape[-1])]
    return max(found, key=lambda one: one.shape[2]).float().cpu() if found else None


@contextmanager
def _quietly(model: nn.Module, drawn: int | None) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    if drawn is None:
        model.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"), torch.random.fork_rng():
            if drawn is not None:
                torch.manual_seed(drawn)
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for name, one in output.items():
            if name in ("logits", "loss", "last_hidden_state") or not isinstance(one, (tuple, list)):
                yield from _tensors(one)
    elif isinstance(output, (tuple, list)):
        for one in output:
            if isinstance(one, Tensor):
                yield one


def only(row: int, rows: int, length: int, keep: Tensor | None, names: Callable[[str], bool]) -> Callable[..., Any]:
    """Cuts a call's arguments down to one row, and of its ``length`` places to those that are to be kept.

    Args:
        row: of ``rows``.
        keep: (T,) bool; None: all places.
        names: which keyword arguments have these places at all.
    """

    def of(value: Any, named: bool) -> Any:
        if not isinstance(value, Tensor) or value.ndim == 0:
            return value
        first = value.shape[0] == rows and value.ndim > 1
        value = value[row : row + 1] if first else value
        if keep is None or not named:
            return value
        for dim in range(1 if value.ndim > 1 else 0, value.ndim):
            if value.shape[dim] == length:
                value = value.index_select(dim, keep.nonzero()[:, 0].to(value.device))
        return value

    def cut(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple(of(one, True) for one in args), {name: of(one, names(name)) for name, one in kwargs.items()}

    return cut
