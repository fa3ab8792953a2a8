"""Which examples are held out: a hash of the source and the seed decides, so equal sources stay together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ganeum.errors import DataError
from ganeum.units import things

Numbers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


def split(digests: Hashes, share: float, seed: int) -> tuple[Numbers, Numbers]:
    """Numbers of the examples to train with, and of those held out, both ascending.

    New examples move none of the others, and neither does their order. Where the share of few examples would leave a
    side empty, the source with the nearest hash goes there.

    Args:
        digests: (examples,) 64 bits of the hash of each source.
        share: of the sources that is held out.
        seed: of the choice.

    Raises:
        DataError: there is one source only.
    """
    keyed = _mixed(np.asarray(digests) ^ _mixed(np.array([seed], np.uint64) + np.uint64(0x9E3779B97F4A7C15)))
    held = keyed < np.uint64(min(share * 2.0**64, 2.0**64 - 2**11))
    if not held.any():
        held = keyed == keyed.min()
    elif held.all():
        held = keyed != keyed.max()
    if held.all() or not held.any():
        raise DataError(
            f"there is nothing to hold out: {things(len(keyed), 'example')} of one source",
            where="data.val_share",
            why="what a model is validated on must not be what it was trained on",
            suggestion="more examples, or data.val=FILE",
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def _mixed(x: Hashes) -> Hashes:
    """SplitMix64's finalizer (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
