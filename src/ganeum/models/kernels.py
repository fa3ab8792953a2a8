"""Whether torch refuses kernels that add in no fixed order: strict while training on a GPU, never while sampling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def mode_kept() -> Iterator[None]:
    """Around what changes the mode: it is the whole process's, and afterwards as it was."""
    strict = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=lenient)


@contextmanager
def any_kernel() -> Iterator[None]:
    """Around what needs no fixed order: a GPU has no other kernel for the cumulative sum that a token is drawn by."""
    with mode_kept():
        torch.use_deterministic_algorithms(False)
        yield
