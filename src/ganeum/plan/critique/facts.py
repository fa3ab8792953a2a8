"""What a look is given, and what it answers with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from ganeum.config.schema import Config
from ganeum.data.meta import Meta
from ganeum.hardware.device import Device
from ganeum.plan import memory, time
from ganeum.plan.architecture import Architecture
from ganeum.plan.execution import Execution, Precision
from ganeum.plan.flops import Flops
from ganeum.plan.lengths import Lengths
from ganeum.plan.memory import Memory
from ganeum.plan.parameters import Parameters
from ganeum.plan.time import StepTime


@dataclass(frozen=True)
class Warning:
    """``error``: the run cannot start or cannot fit; ``warning``: it will disappoint; ``note``: worth knowing.

    ``lost``: the share of the run's time, or of what it is to learn, that this costs, 0 to 1; it only orders them.
    """

    severity: Literal["error", "warning", "note"]
    what: str
    figure: str
    try_: str
    lost: float = 0.0

    def as_dict(self) -> dict[str, str]:
        """As in plan.json: severity, what, figure, try."""
        return {"severity": self.severity, "what": self.what, "figure": self.figure, "try": self.try_}


@dataclass(frozen=True, kw_only=True)
class Step:
    """What can be said of a step of any model, ours or one that is known by its name.

    Attributes:
        execution: how it is run, all of it settled.
        steps: of the whole training, where its length is known.
        step_s: seconds of one, measured or predicted, where they are known.
        precision_chosen: whether the planner chose it, the fastest that fits: there is no better one to advise.
        section: what the names of its keys begin with.
    """

    architecture: Architecture
    execution: Execution
    device: Device
    flops: Flops
    steps: int | None = None
    step_s: float | None = None
    precision_chosen: bool = False
    section: ClassVar[str] = ""

    @property
    def precision(self) -> Precision:
        """What products are computed in."""
        return self.execution.precision

    @property
    def batch_size(self) -> int:
        """Sequences a step, on one device."""
        return self.execution.micro_batch_size * self.execution.accumulation

    @cached_property
    def time(self) -> StepTime | None:
        """What its parts should take; None where the device's rates are not known."""
        return time.of(self.architecture, self.execution, self.device)

    def fitting(self, **changes: Any) -> Memory | None:
        """What it would take run otherwise; None where that does not fit."""
        needed = memory.of(self.architecture, replace(self.execution, **changes))
        return needed if needed.fits(self.device) else None


@dataclass(frozen=True, kw_only=True)
class Facts(Step):
    """What is looked at of a run of ours. ``config`` has its vocabulary, micro-batch and checkpointing settled.

    Attributes:
        vocab_known: whether the vocabulary is the data's, or was assumed.
    """

    config: Config
    parameters: Parameters
    lengths: Lengths
    vocab_known: bool
    section: ClassVar[str] = "train."

    @cached_property
    def memory(self) -> Memory:
        """What a step takes."""
        return memory.of(self.architecture, self.execution)

    @cached_property
    def meta(self) -> Meta | None:
        """What ``prepare`` says of the data; None where there is none, or it is another tool's."""
        return Meta.read(Path(self.config.data.directory))

    @property
    def held_out(self) -> int | None:
        """Tokens that are validated on; 0: there are none; None: not known."""
        directory = Path(self.config.data.directory)
        if self.meta is not None:
            return self.meta.val.tokens if self.meta.val else 0
        if (directory / "train.bin").exists() and not (directory / "val.bin").exists():
            return 0
        return None
