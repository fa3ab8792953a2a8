"""Memory that ran out: noticed by whatever name it comes, and everything that the attempt held let go of."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from ganeum import units

T = TypeVar("T")
Part = Literal["start", "step", "update", "evaluation", "sample"]

# What torch says and the libraries below it: its CPU allocator, C++'s new, oneDNN, cuBLAS and cuDNN, the CUDA driver.
SAID = (
    "can't allocate memory",
    "bad_alloc",
    "could not create a memory object",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "MPS backend out of memory",
)


@dataclass(frozen=True)
class Full:
    """What an attempt came to when memory ran out: what was ``said``, and in which ``part`` of the training.

    In a ``step``, forward and backward, fewer sequences at once help; in an ``evaluation`` too, and these are others.
    At the ``start`` (the model is built) and in the ``update`` of the weights no sequence is held, so nothing does.
    """

    said: str
    part: Part = "step"


def is_it(error: BaseException) -> bool:
    """Whether an error means that memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # oneDNN's last words: with more behind them (a "descriptor") they mean something else.
    return str(error).endswith("could not create a primitive") or any(text in str(error) for text in SAID)


def said(error: BaseException) -> str:
    """How much was asked for, where the error tells; else its first line. Its advice is not ours, and often long."""
    line = (str(error).splitlines() or [""])[0]
    if asked := re.search(r"tried to allocate (\d+) bytes", line):  # torch's CPU allocator
        return f"{units.size(int(asked[1]))} more were refused"
    if asked := re.search(r"Tried to allocate ([\d.]+ \w+)", line):  # CUDA's
        return f"{asked[1]} more were refused"
    return line or "no more could be allocated"


def attempt(work: Callable[[], T], part: Callable[[], Part]) -> T | Full:
    """What ``work`` returns; where memory runs out in it, :class:`Full`, and what it held is free again.

    Args:
        part: asked then, where it was.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_it(error):
            raise
        full = Full(said(error), part())
    release()  # only here: the error is gone by now, and with it its frames, which held every activation
    return full


def release() -> None:
    """Gives back what nothing refers to any more; CUDA's cache too, so that other sizes find room."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
