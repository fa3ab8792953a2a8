"""Batches straight from the memory map: each a pure function of (seed, step), so resuming needs only the step."""

from __future__ import annotations

import numpy as np
import torch

from ganeum.config.schema import Data
from ganeum.data.corpus import Tokens, file_of, too_short
from ganeum.data.order import Indices, Offsets, Permutation
from ganeum.data.windows import Windows
from ganeum.errors import DataError


class Batches:
    """The training batches of one run.

    Args:
        tokens: (n_tokens,) uint16 or uint32; only the windows asked for are ever read.
        data: order and stride.
        block_size: T, tokens in a window.
        batch_size: B, sequences in a batch.
        seed: with the step, decides everything.

    Raises:
        DataError: there are fewer tokens than one window, or (order: epochs) fewer windows than one batch.
    """

    def __init__(self, tokens: Tokens, data: Data, block_size: int, batch_size: int, seed: int) -> None:
        self.tokens, self.block_size, self.batch_size, self.seed = tokens, block_size, batch_size, seed
        self._views = _all_windows(tokens, block_size)
        self.order = data.order
        stride = block_size if data.order == "random" or data.stride == "auto" else data.stride
        self.windows = Windows(len(tokens), block_size, stride)
        if self.order == "epochs" and self.steps_per_epoch == 0:
            raise DataError(
                f"one batch is {batch_size:,} windows, but there are only {self.windows.count:,}",
                where=file_of(tokens),
                why=f"`order: epochs` never repeats a window within a pass, and {len(tokens):,} tokens make "
                f"{self.windows.count:,} windows of {block_size:,} at a stride of {stride:,}",
                suggestion=f"train.batch_size: {self.windows.count}, a smaller data.stride, or data.order: random",
            )

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the windows."""
        return self.windows.steps_per_epoch(self.batch_size)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of the update after ``step`` completed ones: two (B, T) int64 tensors on the CPU."""
        return _pair(self._views[self.offsets(step)])

    def offsets(self, step: int) -> Indices:
        """Offset of the first token of each of its windows, shape (B,)."""
        if self.order == "random":
            return Offsets(len(self.tokens), self.block_size, self.seed).at(step, self.batch_size)
        epoch, place = divmod(step, self.steps_per_epoch)
        order = Permutation(self.windows.count, self.seed, epoch)
        first = place * self.batch_size
        return self.windows.starts(order.at(np.arange(first, first + self.batch_size)))


def validation_windows(val: Tokens, block_size: int, eval_tokens: int | str) -> tuple[torch.Tensor, torch.Tensor]:
    """The fixed validation set: windows that do not overlap, spread evenly over the whole of ``val``.

    Args:
        val: (n_tokens,) the held-out tokens.
        block_size: T, tokens in a window.
        eval_tokens: the size wanted, in tokens, rounded down to whole windows (one at least); ``"all"``: every window.

    Returns:
        Inputs and targets, two (W, T) int64 tensors; the same at every call.

    Raises:
        DataError: there are fewer tokens than one window.
    """
    views = _all_windows(val, block_size)
    there = Windows(len(val), block_size, block_size).count
    wanted = there if eval_tokens == "all" else min(there, max(1, int(eval_tokens) // block_size))
    return _pair(views[np.arange(wanted) * there // wanted * block_size])


def _all_windows(tokens: Tokens, block_size: int) -> Tokens:
    """A view of the window at every offset, (n_tokens - T, T + 1); nothing is copied or read."""
    if len(tokens) <= block_size:
        raise too_short(tokens, block_size)
    return np.lib.stride_tricks.sliding_window_view(np.asarray(tokens), block_size + 1)


def _pair(windows: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T + 1) tokens → inputs and targets, two contiguous (B, T) int64 tensors."""
    rows = torch.from_numpy(windows.astype(np.int64))
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
