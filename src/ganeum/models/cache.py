"""Keys and values of the tokens already read, one pair a block, so that generation reads each token once.

Shapes: B = sequences, T = tokens in each, H = heads of keys and values, D = head_dim.
"""

from __future__ import annotations

from torch import Tensor

from ganeum.config.schema import Model

FIRST = 256  # tokens that it can hold at first; it grows by doubling, since a long context may never be filled


class Cache:
    """Empty at first; ``length`` is the number of tokens in it, which the model moves on after its last block."""

    def __init__(self, config: Model) -> None:
        self.room = config.block_size  # tokens it can ever hold; a longer text is begun again (see generate.py)
        self.keys: list[Tensor | None] = [None] * config.n_layer  # each (B, H, at most room, D)
        self.values: list[Tensor | None] = [None] * config.n_layer
        self.length = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Adds a block's new (B, H, T, D) and returns views on all there is: (B, H, length + T, D)."""
        end = self.length + k.size(2)
        keys, values = self._grown(self.keys[layer], k, end), self._grown(self.values[layer], v, end)
        self.keys[layer], self.values[layer] = keys, values
        keys[:, :, self.length : end], values[:, :, self.length : end] = k, v
        return keys[:, :, :end], values[:, :, :end]

    def _grown(self, kept: Tensor | None, new: Tensor, end: int) -> Tensor:
        """What was kept, in a tensor that holds at least ``end`` tokens."""
        there = 0 if kept is None else kept.size(2)
        if kept is not None and end <= there:
            return kept
        B, H, _, D = new.shape
        larger = new.new_empty(B, H, min(self.room, max(FIRST, end, 2 * there)), D)
        if kept is not None:
            larger[:, :, : self.length] = kept[:, :, : self.length]
        return larger
