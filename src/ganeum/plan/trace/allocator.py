"""A model of CUDA's caching allocator: what it reserves for a sequence of requests and releases. Loads no torch.

It follows ``DeviceCachingAllocator`` in c10/cuda/CUDACachingAllocator.cpp (torch 2.11 to 2.13) for one stream and no
graph capture, with blocks that have an address and no memory behind it:

- sizes are rounded up to 512 bytes; up to 1 MiB from the small pool, above from the large one;
- the smallest free block that is large enough is taken, of equal ones that with the lowest address, and split;
- where there is none, a segment is asked of the driver: 2 MiB for small requests, 20 MiB for those below 10 MiB, else
  the size rounded up to 2 MiB; an expandable segment grows by pages of 2 or 20 MiB instead;
- a block that is given back merges with its free neighbours and stays reserved;
- where the driver has no more, whole free segments (and pages) are given back to it, and it is asked again.

The driver's addresses are taken to rise from segment to segment.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import NamedTuple

from ganeum.plan.trace.allocator_settings import MIB, Settings

LEAST = 512  # bytes: every size is a multiple
SMALL, SMALL_SEGMENT = MIB, 2 * MIB
LARGE_ALONE, ROUND = 10 * MIB, 2 * MIB  # from here on a request has a segment of its own size
ADDRESSES = 1 << 50  # bytes of address space of an expandable segment where the device's memory is not known


class OutOfMemory(Exception):
    """What is asked for is not there, even after everything free was given back.

    Attributes:
        wanted: bytes that were asked for.
        allocated, reserved: what the allocator had given out and held then.
    """

    def __init__(self, wanted: int, allocated: int, reserved: int) -> None:
        super().__init__(f"{wanted:,} bytes wanted with {allocated:,} allocated and {reserved:,} reserved")
        self.wanted, self.allocated, self.reserved = wanted, allocated, reserved


class Block:
    """A piece of a segment; ``before`` and ``after`` are its neighbours in it."""

    __slots__ = ("address", "after", "age_base", "before", "expandable", "mapped", "pool", "size", "taken")

    def __init__(self, address: int, size: int, pool: Pool, *, expandable: bool = False, mapped: bool = True) -> None:
        self.address, self.size, self.pool = address, size, pool
        self.expandable, self.mapped, self.taken = expandable, mapped, False
        self.before: Block | None = None
        self.after: Block | None = None
        self.age_base = 0

    @property
    def whole(self) -> bool:
        """Whether it is all of its segment."""
        return self.before is None and self.after is None

    def put_between(self, before: Block | None, after: Block | None) -> None:
        """Links it in."""
        self.before, self.after = before, after
        if before is not None:
            before.after = self
        if after is not None:
            after.before = self


class Pool:
    """The free blocks for small or for large requests: by size, then address; and what is not mapped, by address."""

    def __init__(self, *, small: bool) -> None:
        self.small = small
        self.free: list[tuple[int, int, Block]] = []
        self.unmapped: list[tuple[int, Block]] = []
        self.searches = 0

    def add(self, block: Block) -> None:
        """A mapped block that is free, or one that is not mapped."""
        if block.mapped:
            block.age_base = self.searches
            insort(self.free, (block.size, block.address, block))
        else:
            insort(self.unmapped, (block.address, block))

    def remove(self, block: Block) -> None:
        """A block that was added, with the size and address that it had then."""
        if block.mapped:
            self.free.pop(bisect_left(self.free, (block.size, block.address)))
        else:
            self.unmapped.pop(bisect_left(self.unmapped, (block.address,)))


class Counts(NamedTuple):
    """Bytes given out (in blocks), asked for, and reserved."""

    allocated: int
    requested: int
    reserved: int


class CachingAllocator:
    """The allocator of one device.

    Args:
        settings: how it works.
        limit: bytes that it may reserve, as of ``torch.cuda.set_per_process_memory_fraction``; None: no such limit.
        capacity: bytes that the driver has for it; None: as many as it asks for.
        memory: bytes of the whole device: an expandable segment has 9/8 of it as address space.

    Attributes:
        allocated, requested, reserved: bytes now; ``peak_allocated`` and its like: the most so far.
        segments: requests that the driver has granted; ``retries``: how often everything free was given back first.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        limit: int | None = None,
        capacity: int | None = None,
        memory: int | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.limit, self.capacity = limit, capacity
        self._address_space = ADDRESSES if memory is None else memory + memory // 8
        self.small, self.large = Pool(small=True), Pool(small=False)
        self.allocated = self.requested = self.reserved = 0
        self.peak_allocated = self.peak_requested = self.peak_reserved = 0
        self.segments = self.retries = 0
        self._held: dict[int, tuple[Block, int]] = {}
        self._next_address = 1 << 40
        self._collects = limit is not None and self.settings.garbage_collection_threshold > 0

    def counts(self) -> Counts:
        """Now."""
        return Counts(self.allocated, self.requested, self.reserved)

    def allocate(self, key: int, size: int) -> int:
        """``size`` bytes, to be given back under ``key`` → those of the block; nothing for none, as torch has it.

        Raises:
            OutOfMemory: they are not there.
        """
        if size == 0:
            return 0
        rounded = self.round(size)
        pool = self.small if rounded <= SMALL else self.large
        block = self._of_cache(pool, rounded) or self._of_driver(pool, rounded)
        if block is None:
            raise OutOfMemory(size, self.allocated, self.reserved)
        if self._splits(block, rounded):
            rest = Block(block.address + rounded, block.size - rounded, pool, expandable=block.expandable)
            rest.put_between(block, block.after)
            block.size = rounded
            pool.add(rest)
        block.taken = True
        self._held[key] = block, size
        self.allocated += block.size
        self.requested += size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        self.peak_requested = max(self.peak_requested, self.requested)
        return block.size

    def release(self, key: int) -> None:
        """Gives back what was allocated under ``key``; nothing where there is no such allocation."""
        if key not in self._held:
            return
        block, size = self._held.pop(key)
        block.taken = False
        self.allocated -= block.size
        self.requested -= size
        self._merge(block)
        block.pool.add(block)

    def empty_cache(self) -> None:
        """Gives whole free segments and pages back to the driver, as ``torch.cuda.empty_cache`` does."""
        for pool in (self.large, self.small):
            for _, _, block in list(pool.free):
                if block.expandable:
                    self._unmap(block)
                elif block.whole:
                    self._give_back(block)

    def round(self, size: int) -> int:
        """The bytes that a request of ``size`` gets at least."""
        if size < LEAST:
            return LEAST
        divisions = self.settings.divisions(size)
        if divisions <= 1 or size <= LEAST * divisions:
            return _up(size, LEAST)
        floor = 1 << (size.bit_length() - 1)
        return _up(size, floor // divisions) if floor >= divisions else 2 * floor

    def _of_cache(self, pool: Pool, size: int) -> Block | None:
        """The free block that suits best, taken out of the pool."""
        pool.searches += self._collects
        free, most = pool.free, self.settings.max_split_size
        at = bisect_left(free, (size,))
        if at == len(free):
            return None
        block = free[at][2]
        if block.expandable:  # a block that can grow counts as large as it can become
            while at + 1 < len(free) and _can_become(free[at + 1][2]) < _can_become(block):
                at += 1
                block = free[at][2]
        if most is not None and (
            block.size >= most if size < most else block.size >= size + self.settings.max_non_split_rounding
        ):
            return None
        del free[at]
        return block

    def _of_driver(self, pool: Pool, size: int) -> Block | None:
        if self._collects:
            self._collect_garbage()
        block = self._new(pool, size)
        if block is None and self._release_large_enough(pool, size):
            block = self._new(pool, size)
        if block is None:
            self.empty_cache()
            self.retries += 1
            block = self._new(pool, size)
        return block

    def _new(self, pool: Pool, size: int) -> Block | None:
        asked = self.segment_size(size)
        if self.limit is not None and self.reserved + asked > self.limit:
            return None
        if self.settings.expandable_segments:
            return self._grown(pool, size)
        if not self._grant(asked):
            return None
        block = Block(self._next_address, asked, pool)
        self._next_address += asked
        return block

    def segment_size(self, size: int) -> int:
        """What the driver is asked for where a rounded size is not there."""
        if size <= SMALL:
            return SMALL_SEGMENT
        return self.settings.large_segment_size if size < LARGE_ALONE else _up(size, ROUND)

    def _grant(self, size: int) -> bool:
        """Whether the driver has ``size`` bytes more; then they are reserved."""
        if self.capacity is not None and self.reserved + size > self.capacity:
            return False
        self.reserved += size
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        self.segments += 1
        return True

    def _splits(self, block: Block, size: int) -> bool:
        rest = block.size - size
        if block.pool.small or self.settings.expandable_segments:
            return rest >= LEAST
        most = self.settings.max_split_size
        return rest > SMALL and (most is None or size < most)

    def _merge(self, block: Block) -> None:
        """Takes free neighbours in that are mapped, or not mapped, like ``block``."""
        for other in (block.before, block.after):
            if other is None or other.taken or other.mapped != block.mapped:
                continue
            block.pool.remove(other)
            if other is block.before:
                block.address = other.address
                block.put_between(other.before, block.after)
            else:
                block.put_between(block.before, other.after)
            block.size += other.size

    # Expandable segments: address space in which pages are mapped as they are needed, from the lowest address on.

    def _grown(self, pool: Pool, size: int) -> Block | None:
        block = self._room(pool, size)
        if not block.mapped and not self._map(block, min(block.size, size)):
            return None
        while block.size < size:
            following = block.after
            assert following is not None
            if not self._map(following, min(size - block.size, following.size)):
                return None
            block = following
        pool.remove(block)
        return block

    def _room(self, pool: Pool, size: int) -> Block:
        """The lowest block, free or not mapped, from which on ``size`` bytes are free or not mapped."""
        for _, block in pool.unmapped:
            start = block.before if block.before is not None and not block.before.taken else block
            room, end = 0, start
            while room < size and end is not None and not end.taken:
                room += end.size
                end = end.after  # type: ignore[assignment]
            if room >= size:
                return start
        page = self._page(pool)
        address, length = _up(self._next_address, page), _up(self._address_space, page)
        segment = Block(address, length, pool, expandable=True, mapped=False)
        self._next_address = address + length
        pool.add(segment)
        return segment

    def _map(self, block: Block, size: int) -> bool:
        """Puts pages behind the first ``size`` bytes of ``block``, and makes it a free one."""
        asked = _up(size, self._page(block.pool))
        if not self._grant(asked):
            return False
        block.pool.remove(block)
        block.mapped = True
        if asked < block.size:
            rest = Block(block.address + asked, block.size - asked, block.pool, expandable=True, mapped=False)
            rest.put_between(block, block.after)
            block.pool.add(rest)
            block.size = asked
        self._merge(block)
        block.pool.add(block)
        return True

    def _unmap(self, block: Block) -> None:
        """Gives the whole pages in a free block back; what is left at its ends stays free."""
        pool, page = block.pool, self._page(block.pool)
        start, end = _up(block.address, page), (block.address + block.size) // page * page
        if start >= end:
            return
        pool.remove(block)
        if start > block.address:
            left = Block(block.address, start - block.address, pool, expandable=True)
            left.put_between(block.before, block)
            pool.add(left)
        if end < block.address + block.size:
            right = Block(end, block.address + block.size - end, pool, expandable=True)
            right.put_between(block, block.after)
            pool.add(right)
        block.address, block.size, block.mapped = start, end - start, False
        self.reserved -= block.size
        self._merge(block)
        if not block.whole:
            pool.add(block)

    def _page(self, pool: Pool) -> int:
        return SMALL_SEGMENT if pool.small else self.settings.large_segment_size

    # Giving back.

    def _give_back(self, block: Block) -> None:
        block.pool.remove(block)
        self.reserved -= block.size

    def _release_large_enough(self, pool: Pool, size: int) -> bool:
        """With ``max_split_size``: gives back one block that is never split and large enough, or several of them."""
        most = self.settings.max_split_size
        if most is None:
            return False
        wanted = max(size, most)
        at = bisect_left(pool.free, (wanted,))
        if at < len(pool.free):
            self._give_back(pool.free[at][2])
            return True
        released = 0
        while released < wanted and pool.free and pool.free[-1][0] >= most:
            released += pool.free[-1][0]
            self._give_back(pool.free[-1][2])
        return released >= wanted

    def _collect_garbage(self) -> None:
        """Above the threshold: gives back whole free segments, those first that were passed over longest."""
        assert self.limit is not None
        threshold = int(self.settings.garbage_collection_threshold * self.limit)
        if self.reserved <= threshold:
            return
        target, reclaimed, pool = self.reserved - threshold, 0, self.large
        while reclaimed < target:
            ages = [(pool.searches - block.age_base, block) for _, _, block in pool.free if block.whole]
            if not ages:
                return
            mean = sum(age for age, _ in ages) / len(ages)
            for age, block in ages:
                if age >= mean:
                    reclaimed += block.size
                    self._give_back(block)


def _can_become(block: Block) -> int:
    after = block.after
    return block.size + (after.size if after is not None and not after.mapped else 0)


def _up(size: int, step: int) -> int:
    return -(-size // step) * step
