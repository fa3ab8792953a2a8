"""The keys that may be `auto` in a config, as the values they have once they are resolved."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ganeum.config import Config
from ganeum.step.precision import Precision


@dataclass(frozen=True)
class Settled:
    """Each as the key of the same name; ``sample_interval`` 0 is never, ``max_iters`` 0 with `eval_only`."""

    micro_batch_size: int
    precision: Precision
    compile: bool
    loss_chunk: int
    max_iters: int
    eval_interval: int
    eval_batch_size: int
    checkpoint_interval: int
    sample_interval: int
    log_interval: int

    @classmethod
    def of(cls, config: Config) -> Settled:
        train = config.train
        values: dict[str, Any] = {
            **{field.name: getattr(train, field.name, None) for field in fields(cls)},
            "max_iters": train.max_iters or 0,
            "sample_interval": config.sample.interval,
            "log_interval": config.log.interval,
        }
        assert "auto" not in values.values(), f"resolved before: {values}"
        return cls(**values)
