"""The model of CUDA's caching allocator against torch's own, and its settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ganeum.errors import ConfigError
from ganeum.plan.trace.allocator import CachingAllocator, OutOfMemory
from ganeum.plan.trace.allocator_settings import MIB, Settings, of_environment, parse

# What torch 2.13.0's libc10_cuda.so did, over a driver without memory (benchmarks/allocator.py --fixture).
CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "torch_allocator.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['settings']}-{c['capacity']}-{c['limited']}")
def test_torch_allocates_the_same(case: dict[str, Any]) -> None:
    """After every request, release and emptying: the bytes, the peaks, the retries and the end of memory of torch."""
    allocator = CachingAllocator(
        parse(case["settings"]),
        limit=int(0.75 * case["total"]) if case["limited"] else None,
        capacity=case["capacity"],
        memory=case["total"],
    )
    for (what, key, size), row in zip(case["operations"], case["rows"], strict=True):
        out = False
        if what == "a":
            try:
                allocator.allocate(key, size)
            except OutOfMemory:
                out = True
        elif what == "f":
            allocator.release(key)
        else:
            allocator.empty_cache()
        peaks = [allocator.peak_allocated, allocator.peak_reserved]
        assert row == [*allocator.counts(), *peaks, allocator.retries, out]


def test_sequences_run_out_of_memory() -> None:
    """The sequences above reach what they are there for: retries, and memory that is not there."""
    assert sum(case["rows"][-1][5] > 0 for case in CASES) >= 10
    assert any(row[-1] for case in CASES for row in case["rows"])


def test_sizes_and_segments() -> None:
    """100 B are 512 of a segment of 2 MiB; 3 MiB are cut from 20; 18 MiB and more have 20 of their own; 0 take none."""
    allocator = CachingAllocator()
    for key, size, allocated, reserved in (
        (1, 100, 512, 2 * MIB),
        (2, 3 * MIB, 512 + 3 * MIB, 22 * MIB),
        (3, 18 * MIB + 1, 512 + 3 * MIB + 18 * MIB + 512, 42 * MIB),
        (4, 0, 512 + 3 * MIB + 18 * MIB + 512, 42 * MIB),
    ):
        allocator.allocate(key, size)
        assert (allocated, reserved) == (allocator.allocated, allocator.reserved)
    allocator.release(4)
    allocator.release(99)
    assert (512 + 3 * MIB + 18 * MIB + 512, 42 * MIB) == (allocator.allocated, allocator.reserved)


def test_a_small_rest_stays_with_its_block() -> None:
    """Of a segment of 22 MiB for 21 nothing is split off: the rest of 1 MiB counts as allocated."""
    allocator = CachingAllocator()
    allocator.allocate(1, 21 * MIB)  # a segment of 22: the driver is asked for multiples of 2
    assert (22 * MIB, 21 * MIB) == (allocator.allocated, allocator.requested)


def test_an_expandable_segment_grows_by_pages() -> None:
    """12 MiB and then 30 need two segments of 42 MiB, or one of three pages of 20."""
    plain, growing = CachingAllocator(), CachingAllocator(Settings(expandable_segments=True))
    for allocator in (plain, growing):
        allocator.allocate(1, 12 * MIB)
        allocator.allocate(2, 30 * MIB)
    assert (42 * MIB, 60 * MIB) == (plain.reserved, growing.reserved)


def test_what_ran_out_is_said() -> None:
    """The error has what was wanted, given out and held."""
    allocator = CachingAllocator(capacity=100 * MIB)
    allocator.allocate(1, 60 * MIB)
    with pytest.raises(OutOfMemory) as error:
        allocator.allocate(2, 41 * MIB)
    told = error.value
    assert (41 * MIB, 60 * MIB, 60 * MIB) == (told.wanted, told.allocated, told.reserved)


def test_settings_are_read_as_torch_reads_them() -> None:
    """The line of torch's own test (c10/test/core/AllocatorConfig_test.cpp) sets what it expects there."""
    found = parse(
        "max_split_size_mb:40,max_non_split_rounding_mb:30,garbage_collection_threshold:0.5,"
        "roundup_power2_divisions:[64:8,128:2,256:4,512:2,1024:4,>:1],expandable_segments:True,"
        "pinned_use_background_threads:True"
    )
    assert (40 * MIB, 30 * MIB, 0.5, True) == (
        found.max_split_size,
        found.max_non_split_rounding,
        found.garbage_collection_threshold,
        found.expandable_segments,
    )
    sizes = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
    assert [8, 8, 2, 4, 2, 4, 1, 1, 1] == [found.divisions(size * MIB) for size in sizes]


def test_the_environment_is_read() -> None:
    """The newer name counts before the older one; nothing set is nothing said."""
    both = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}
    assert Settings(expandable_segments=True) == of_environment(both)
    assert of_environment({}) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("expandable_segments", "expandable_segments has no value"),
        ("expandable_segments:true", "expandable_segments must be True or False, but it is true"),
        ("max_split_size_mb:8", "max_split_size_mb must be a whole number of at least 20, but it is 8"),
        ("garbage_collection_threshold:2", "garbage_collection_threshold must lie between 0 and 1, but it is 2"),
        ("roundup_power2_divisions:3", "roundup_power2_divisions takes powers of two, but one is 3"),
        ("max_size:3", "there is no allocator setting max_size"),
        ("backend:cudaMallocAsync", "what the allocator of backend:cudaMallocAsync reserves is not predicted"),
    ],
)
def test_settings_that_torch_refuses(text: str, said: str) -> None:
    """Each is refused with what is wrong, and where it stands."""
    with pytest.raises(ConfigError) as error:
        of_environment({"PYTORCH_CUDA_ALLOC_CONF": text})
    assert (said, "PYTORCH_CUDA_ALLOC_CONF") == (error.value.what, error.value.where)
