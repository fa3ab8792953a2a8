"""Variants that the device does not hold together: one is built when it is its turn, and the other one ended.

Each block begins with the first batches and one step that is not counted, so that both sides always take the same. Of
the order A B B A, A B B A, … each process serves two blocks in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType

from ganeum.doctor.measured.training import Block
from ganeum.doctor.measured.worker import Worker


class Place:
    """Where one variant at a time is built."""

    def __init__(self) -> None:
        self.taken_by: InTurn | None = None


class InTurn:
    """A variant that is built whenever it is measured.

    Args:
        build: starts its process.
        place: shared with the variant that it takes turns with.
    """

    def __init__(self, build: Callable[[], Worker], place: Place) -> None:
        self._build, self._place = build, place
        self._worker: Worker | None = None
        self.limit_s: float | None = None

    def __enter__(self) -> InTurn:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def is_alive(self) -> bool:
        """It can always be built again."""
        return True

    def rewind(self) -> None:
        """Each block does it."""

    def warm(self, seconds: float = 0.3, least: int = 3) -> float:
        """As a worker does."""
        return self._built().warm(seconds, least)

    def block(self, steps: int) -> Block:
        """Some steps from the first batch on, after one that is not counted."""
        worker = self._built()
        worker.rewind()
        worker.block(1)
        worker.rewind()
        return worker.block(steps)

    def start_s(self) -> float:
        """As a worker does."""
        return self._built().start_s()

    def peak(self) -> Mapping[str, float]:
        """As a worker does."""
        return self._built().peak()

    def close(self) -> None:
        """Ends its process, if there is one."""
        if self._worker is not None:
            worker, self._worker = self._worker, None
            worker.close()

    def _built(self) -> Worker:
        if self._worker is None:
            if self._place.taken_by is not None:
                self._place.taken_by.close()
            self._place.taken_by = self
            self._worker = self._build()
            if self.limit_s is not None:
                self._worker.limit_s = self.limit_s
            self._worker.warm()
        return self._worker
