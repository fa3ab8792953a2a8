"""A batch, whatever it is made of: the tensors in it, and the same batch with other tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

IDS = ("input_ids", "tokens", "ids", "x", "inputs")
LABELS = ("labels", "targets", "y", "label_ids", "lm_labels")
MASK = "attention_mask"
IGNORED = -100  # what torch's and Hugging Face's losses leave out


def each(batch: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Name (or place) → tensor, however deep it lies."""
    if isinstance(batch, Tensor):
        yield name, batch
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from each(value, str(key))
    elif isinstance(batch, (tuple, list)):
        for place, value in enumerate(batch):
            yield from each(value, str(place))
    elif is_dataclass(batch) and not isinstance(batch, type):
        for field in fields(batch):
            yield from each(getattr(batch, field.name), field.name)


def mapped(batch: Any, change: Callable[[str, Tensor], Tensor], name: str = "") -> Any:
    """The same batch with ``change(name, tensor)`` in place of each tensor."""
    if isinstance(batch, Tensor):
        return change(name, batch)
    if isinstance(batch, Mapping):
        changed = {key: mapped(value, change, str(key)) for key, value in batch.items()}
        return changed if type(batch) is dict else type(batch)(changed)  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(mapped(value, change, str(place)) for place, value in enumerate(batch)))
    if isinstance(batch, (tuple, list)):
        return type(batch)(mapped(value, change, str(place)) for place, value in enumerate(batch))
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{f.name: mapped(getattr(batch, f.name), change, f.name) for f in fields(batch)})
    return batch


def on_gradient(found: Any, call: Callable[[], None]) -> bool:
    """``call`` is called when a gradient comes back to a tensor of it → whether one can."""
    can = False
    for _, tensor in each(found):
        if tensor.requires_grad:
            tensor.register_hook(lambda _: call())  # type: ignore[no-untyped-call]
            can = True
    return can


def merged(batches: list[Any]) -> Any:
    """Several in one, row upon row.

    Raises:
        ValueError: their tensors do not have one shape, or there is something in them that cannot be joined.
    """
    rows = [list(each(batch)) for batch in batches]
    if not rows[0]:
        raise ValueError("a batch holds no tensors")
    first = rows[0][0][1]
    for others in rows:
        if [(name, t.shape[1:], t.dtype) for name, t in others] != [
            (name, t.shape[1:], t.dtype) for name, t in rows[0]
        ]:
            raise ValueError("batches do not have one shape")
        if any(t.dim() == 0 or len(t) != len(others[0][1]) for _, t in others):
            raise ValueError("not every tensor of a batch has a row for each sequence")
    assert first.dim() > 0
    joined = iter([torch.cat([others[place][1] for others in rows]) for place in range(len(rows[0]))])
    return mapped(batches[0], lambda _name, _tensor: next(joined))


def widened(batches: list[Any]) -> list[Any]:
    """Batches of one width: filled up at the right, labels with −100 and all else with zeros, which a mask hides.

    Raises:
        ValueError: rows are filled up at the left.
    """
    if any((shown := mask(batch)) is not None and not bool(shown[:, 0].all()) for batch in batches):
        raise ValueError("rows are filled up at the left")
    width: dict[str, int] = {}
    for batch in batches:
        for name, tensor in each(batch):
            width[name] = max(width.get(name, 0), tensor.size(1) if tensor.dim() == 2 else 0)

    def fill(name: str, tensor: Tensor) -> Tensor:
        if tensor.dim() != 2:
            return tensor
        value = IGNORED if name in LABELS else 0
        return torch.nn.functional.pad(tensor, (0, width[name] - tensor.size(1)), value=value)

    return [mapped(batch, fill) for batch in batches]


def size_bytes(batch: Any) -> int:
    """Of its tensors."""
    return sum(tensor.numel() * tensor.element_size() for _, tensor in each(batch))


def ids(batch: Any) -> Tensor | None:
    """Token ids (B, T), by their name, or the first whole numbers in two dimensions."""
    found = dict(each(batch))
    whole = {name: t for name, t in found.items() if t.dim() == 2 and t.dtype in (torch.int64, torch.int32)}
    return next((whole[name] for name in IDS if name in whole), next(iter(whole.values()), None))


def labels(batch: Any) -> Tensor | None:
    """Labels (B, T), by their name, or in a pair the second."""
    found = dict(each(batch))
    named = next((found[name] for name in LABELS if name in found), None)
    if named is None and set(found) == {"0", "1"} and found["0"].shape == found["1"].shape:
        return found["1"]
    return named


def mask(batch: Any) -> Tensor | None:
    """The attention mask (B, T), where there is one of two dimensions."""
    found = dict(each(batch)).get(MASK)
    return found if found is not None and found.dim() == 2 else None
