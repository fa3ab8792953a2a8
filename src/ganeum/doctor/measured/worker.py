"""A variant of a training in a process of its own, which stands still while another one is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ganeum.doctor.finding import Finding
from ganeum.doctor.measured.remedy import Remedy
from ganeum.doctor.measured.training import Block, Subject


class Gone(Exception):
    """The process ended, or did not answer in time; the text says why, ``memory``: for want of memory."""

    def __init__(self, why: str, *, memory: bool = False) -> None:
        super().__init__(why)
        self.memory = memory


class Worker:
    """One variant of a training."""

    @classmethod
    def start(cls, subject: Subject, remedies: Sequence[Remedy] = ()) -> Worker:
        """Builds it; no step is taken yet.

        Raises:
            Gone: it cannot be built.
        """
        raise NotImplementedError

    def facts(self) -> Mapping[str, Any]:
        """What remedies are chosen by: ``facts.of(training)``, called in the worker."""
        raise NotImplementedError

    def examine(self) -> list[Finding]:
        """``ganeum.doctor.examine.examine(training)``, called in the worker."""
        raise NotImplementedError

    def block(self, steps: int) -> Block:
        """Some steps."""
        raise NotImplementedError

    def phases(self, steps: int) -> Block:
        """Some steps with the seconds of their parts; the device is waited for at each, so the sum is no measure."""
        raise NotImplementedError

    def peak(self) -> Mapping[str, float]:
        """GiB: ``allocated`` and ``reserved`` on a GPU, ``resident`` of the process."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends the process."""
        raise NotImplementedError
