"""The order in which windows are drawn: at random, or each once an epoch; any place of it without what came before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
_HALF_ROUNDS = 8


@dataclass(frozen=True)
class Offsets:
    """Random starts, each offset as likely as any other, drawn anew at every step.

    The draws are Philox's raw 64-bit words keyed by (seed, step): a step's offsets need no history, and numpy promises
    that stream for good, which it does not for the methods of ``Generator`` (NEP 19).
    """

    n_tokens: int
    block_size: int
    seed: int

    def at(self, step: int, batch_size: int) -> Indices:
        """The starts of the batch after ``step`` completed steps, shape (batch_size,)."""
        # 0 … n_tokens - block_size - 1; the remainder's bias is below n_tokens / 2**64
        offsets = _words(self.seed, step, batch_size) % np.uint64(self.n_tokens - self.block_size)
        return offsets.astype(np.int64)


@dataclass(frozen=True)
class Permutation:
    """0 … count-1 in shuffled order, computed at any place of it without ever being written out.

    A Feistel network on the pairs (a, b), a < rows, b < columns, in which each half-round adds a keyed hash of one half
    to the other: every half-round can be undone, so the whole is a permutation of the rows × columns pairs; a value
    that falls beyond ``count`` goes through again until it does not (cycle walking: Black and Rogaway, "Ciphers with
    arbitrary finite domains", CT-RSA 2002, sections 3 and 4).
    """

    count: int
    seed: int
    epoch: int

    def at(self, index: Indices) -> Indices:
        """The values at these places of the shuffled order; shape as ``index``, every one below ``count``."""
        rows = max(1, int(np.ceil(np.sqrt(self.count))))
        columns = -(-self.count // rows)  # rows × columns is at least count, and less than count + rows
        keys = _words(self.seed, self.epoch, _HALF_ROUNDS, stream=1)
        values = _through(index.astype(np.uint64), keys, rows, columns)
        while (beyond := values >= self.count).any():
            values[beyond] = _through(values[beyond], keys, rows, columns)
        return values.astype(np.int64)


def _through(values: Words, keys: Words, rows: int, columns: int) -> Words:
    """Once through the network: one value for each of 0 … rows × columns - 1."""
    a, b = np.divmod(values, np.uint64(columns))
    for i in range(0, _HALF_ROUNDS, 2):
        a = (a + _mixed(b ^ keys[i]) % np.uint64(rows)) % np.uint64(rows)
        b = (b + _mixed(a ^ keys[i + 1]) % np.uint64(columns)) % np.uint64(columns)
    return a * np.uint64(columns) + b


def _mixed(x: Words) -> Words:
    """SplitMix64's finalizer (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _words(seed: int, counter: int, n: int, *, stream: int = 0) -> Words:
    """n words of Philox; the counter goes to its highest word, so that no draw runs into the next one's."""
    key, start = np.array([seed, stream], np.uint64), np.array([0, 0, 0, counter], np.uint64)
    words: Words = np.random.Philox(key=key, counter=start).random_raw(n)
    return words
