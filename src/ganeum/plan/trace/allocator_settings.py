"""The settings of CUDA's caching allocator, as PYTORCH_ALLOC_CONF says them. Loads no torch.

Read like c10/core/AllocatorConfig.cpp and c10/cuda/CUDAAllocatorConfig.cpp do; what has no part in how much memory a
process reserves (pinned memory, locks) is passed over.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ganeum.errors import ConfigError

MIB = 2**20
VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # the first that is set, as torch 2.9 and later have it
INTERVALS = 16  # of roundup_power2_divisions: 1 MiB, 2 MiB, … 32 GiB and above
LEAST_MIB = 20  # torch refuses less for the three sizes below
WITHOUT_PART = (
    "backend",
    "graph_capture_record_stream_reuse",
    "max_cached_size",
    "max_round_threshold",
    "throw_on_cudamalloc_oom",
)


@dataclass(frozen=True)
class Settings:
    """How the allocator works; the defaults are torch's.

    Attributes:
        expandable_segments: segments grow at their end, instead of one segment for each size that is not there.
        large_segment_size: bytes of a segment for requests of 1 to 10 MiB, and of the pages of an expandable one.
        max_split_size: larger blocks (bytes) are never split; None: all may be.
        max_non_split_rounding: how much larger (bytes) than asked such a block may be.
        roundup_power2_divisions: into how many steps the sizes between powers of two are rounded, for each interval
            from 1 MiB on; 0 or 1: not at all.
        garbage_collection_threshold: share of the limit from which cached blocks are given back early; 0: never.
        per_process_memory_fraction: share of the device's memory that is the limit; 1: none.
    """

    expandable_segments: bool = False
    large_segment_size: int = LEAST_MIB * MIB
    max_split_size: int | None = None
    max_non_split_rounding: int = LEAST_MIB * MIB
    roundup_power2_divisions: tuple[int, ...] = (0,) * INTERVALS
    garbage_collection_threshold: float = 0.0
    per_process_memory_fraction: float = 1.0

    def divisions(self, size: int) -> int:
        """The steps that a request of ``size`` bytes is rounded in."""
        return self.roundup_power2_divisions[min(max(size.bit_length() - MIB.bit_length(), 0), INTERVALS - 1)]


def parse(text: str, where: str = "PYTORCH_ALLOC_CONF") -> Settings:
    """What ``max_split_size_mb:64,expandable_segments:True`` sets.

    >>> parse("max_split_size_mb:64,expandable_segments:True").max_split_size
    67108864

    Raises:
        ConfigError: torch would not take it.
    """
    found = Settings()
    for item in _items(text):
        name, colon, value = item.partition(":")
        if not colon:
            raise _wrong(where, f"{item} has no value", "name:value, separated by commas")
        found = _set(found, name, value, where)
    if "large_segment_size_mb" in text and "max_non_split_rounding_mb" not in text:
        found = replace(found, max_non_split_rounding=found.large_segment_size)
    return found


def of_environment(environment: Mapping[str, str] | None = None) -> Settings | None:
    """What the user's environment sets; None where it sets nothing."""
    given = os.environ if environment is None else environment
    for name in VARIABLES:
        if given.get(name):
            return parse(given[name], where=name)
    return None


def _items(text: str) -> list[str]:
    """Split at commas, but not within brackets; blanks do not count."""
    bare = re.sub(r"\s", "", text)
    return [item for item in re.split(r",(?![^\[]*\])", bare) if item]


def _set(found: Settings, name: str, value: str, where: str) -> Settings:
    if name == "expandable_segments":
        return replace(found, expandable_segments=_truth(name, value, where))
    if name == "large_segment_size_mb":
        return replace(found, large_segment_size=_size(name, value, where))
    if name == "max_split_size_mb":
        return replace(found, max_split_size=_size(name, value, where))
    if name == "max_non_split_rounding_mb":
        return replace(found, max_non_split_rounding=_size(name, value, where))
    if name == "garbage_collection_threshold":
        return replace(found, garbage_collection_threshold=_share(name, value, where))
    if name == "per_process_memory_fraction":
        return replace(found, per_process_memory_fraction=_share(name, value, where, one=True))
    if name == "roundup_power2_divisions":
        return replace(found, roundup_power2_divisions=_divisions(name, value, where))
    if name in WITHOUT_PART or name.startswith(("pinned_", "release_lock_on_")):
        if (name, value) == ("backend", "cudaMallocAsync"):
            raise ConfigError(
                "what the allocator of backend:cudaMallocAsync reserves is not predicted",
                where=where,
                why="it is the driver's own, and there is no source of it",
                suggestion="backend:native",
            )
        return found
    raise _wrong(where, f"there is no allocator setting {name}", "a name of torch's notes on CUDA memory management")


def _truth(name: str, value: str, where: str) -> bool:
    if value not in ("True", "False"):
        raise _wrong(where, f"{name} must be True or False, but it is {value}", f"{name}:True")
    return value == "True"


def _size(name: str, value: str, where: str) -> int:
    if not value.isdecimal() or int(value) < LEAST_MIB:
        raise _wrong(where, f"{name} must be a whole number of at least {LEAST_MIB}, but it is {value}", f"{name}:128")
    return int(value) * MIB


def _share(name: str, value: str, where: str, *, one: bool = False) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not (0 < share < 1 or (one and share in (0.0, 1.0))):
        raise _wrong(where, f"{name} must lie between 0 and 1, but it is {value}", f"{name}:0.8")
    return share


def _divisions(name: str, value: str, where: str) -> tuple[int, ...]:
    """One number for all sizes, or ``[256:1,512:2,>:4]`` by their MiB; what lies before the first is as the first."""
    if not value.startswith("["):
        return (_power_of_two(name, value, where),) * INTERVALS
    found, last = [0] * INTERVALS, -1
    for pair in value.strip("[]").split(","):
        size, _, text = pair.partition(":")
        divisions = _power_of_two(name, text, where, zero=True)
        if size == ">":
            found[last + 1 :] = [divisions] * (INTERVALS - last - 1)
            continue
        index = min(_power_of_two(name, size, where).bit_length() - 1, INTERVALS - 1)
        if last < 0:
            found[:index] = [divisions] * index
        found[index], last = divisions, index
    return tuple(found)


def _power_of_two(name: str, value: str, where: str, *, zero: bool = False) -> int:
    number = int(value) if value.isdecimal() else -1
    if number < (0 if zero else 1) or number & (number - 1):
        raise _wrong(where, f"{name} takes powers of two, but one is {value or 'missing'}", f"{name}:4")
    return number


def _wrong(where: str, what: str, try_: str) -> ConfigError:
    return ConfigError(what, where=where, why="torch would refuse to start with it", suggestion=try_)
