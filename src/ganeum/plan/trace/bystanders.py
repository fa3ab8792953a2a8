"""What stands around a training step and asks for no memory: seeds, statistics, marks, checkpoints, formatted losses.

Somebody's code calls it all the same, and without a GPU torch refuses, or would write a file of nothing.
"""

from __future__ import annotations

import types
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ganeum.plan.trace.fake_cuda import replaced

SILENT = (
    "init",
    "set_rng_state",
    "set_rng_state_all",
    "set_per_process_memory_fraction",
    "ipc_collect",
    "reset_accumulated_memory_stats",
    "reset_max_memory_allocated",
)


@contextmanager
def bystanders(device: str) -> Iterator[None]:
    """Inside, these do nothing on ``device``, or answer what a run that has just begun would."""
    answers: list[tuple[Any, str, Any]] = [
        (torch, "save", _nothing),  # it would empty the file, and then find no numbers to write
        (Tensor, "__format__", _formatted),
    ]
    if device == "cuda":
        state = torch.get_rng_state()
        answers += [
            (torch.cuda, "get_rng_state", lambda *_: state.clone()),
            (torch.cuda, "get_rng_state_all", lambda *_: [state.clone()]),
            (torch.cuda, "memory_stats", lambda *_: defaultdict(int)),
            (torch.cuda, "memory_summary", lambda *_, **__: ""),
            (torch.cuda, "nvtx", MARKS),
            (torch.cuda.memory, "_record_memory_history", _nothing),
            (torch._C, "_scatter", lambda tensor, *_: (tensor.to("cuda"),)),  # nn.DataParallel's, on one card
            *((torch.cuda, name, _nothing) for name in SILENT),
        ]
    with replaced(answers):
        yield


class _Nothing:
    """A context in which nothing is done."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _formatted(tensor: Tensor, form: str) -> str:
    """``f"{loss:.3f}"``: torch formats the number of plain tensors only."""
    return format(tensor.detach().item() if tensor.dim() == 0 else str(tensor), form)


MARKS = types.SimpleNamespace(range=_Nothing, range_push=_nothing, range_pop=_nothing, mark=_nothing)  # nvtx's
