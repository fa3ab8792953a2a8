"""What a look is given, and what it answers with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from ganeum.config.schema import Config
from ganeum.data.meta import Meta
from ganeum.hardware.device import Device
from ganeum.plan import execution, memory
from ganeum.plan.architecture import ours
from ganeum.plan.flops import Flops
from ganeum.plan.lengths import Lengths
from ganeum.plan.memory import Memory
from ganeum.plan.parameters import Parameters


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


@dataclass(frozen=True)
class Facts:
    """What is looked at. ``config`` has its vocabulary, micro-batch and checkpointing settled.

    Attributes:
        precision: what products are computed in.
        vocab_known: whether the vocabulary is the data's, or was assumed.
        total_flops: of the whole run, where its length is known.
        step_s: seconds a step, measured or predicted, where they are known.
    """

    config: Config
    device: Device
    parameters: Parameters
    flops: Flops
    lengths: Lengths
    precision: str
    vocab_known: bool
    total_flops: int | None
    step_s: float | None = None

    @property
    def micro_batch_size(self) -> int:
        """Sequences at once."""
        size = self.config.train.micro_batch_size
        assert isinstance(size, int), "settled before"
        return size

    @cached_property
    def memory(self) -> Memory:
        """What a step takes."""
        return self.memory_with(self.config)

    def memory_with(self, config: Config, micro_batch_size: int | None = None) -> Memory:
        """What a step of another config would take, or one with other sequences at once."""
        size = micro_batch_size or self.micro_batch_size
        return memory.of(ours.architecture(config.model), execution.of(config, self.device, size))

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
