"""Windows over a row of tokens: the one place where their number and their starts are worked out, without numpy.

A window is ``block_size`` inputs and the same shifted by one as targets, so it needs ``block_size + 1`` tokens.
Document 000's training: 130,520 tokens, length 32, stride 4:

>>> book = Windows(n_tokens=130_520, block_size=32, stride=4)
>>> book.count, book.steps_per_epoch(128)
(32622, 254)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ganeum.data.order import Indices


@dataclass(frozen=True)
class Windows:
    """The windows of ``n_tokens`` tokens whose starts lie ``stride`` tokens apart.

    Args:
        n_tokens: tokens there are.
        block_size: inputs in a window, tokens.
        stride: tokens between the starts of neighbouring windows.
    """

    n_tokens: int
    block_size: int
    stride: int

    def __post_init__(self) -> None:
        assert min(self.block_size, self.stride) > 0, (self.block_size, self.stride)

    @property
    def count(self) -> int:
        """How many windows there are; 0 where the tokens are fewer than one window needs."""
        return max(0, (self.n_tokens - self.block_size - 1) // self.stride + 1)

    def starts(self, index: Indices) -> Indices:
        """Offset of the first token of each window, shape as ``index``."""
        return index * self.stride

    def steps_per_epoch(self, batch_size: int) -> int:
        """Full batches in one pass; the windows left over (another choice each epoch) wait for a later one."""
        return self.count // batch_size
