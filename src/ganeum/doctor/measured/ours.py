"""A config of ours as a training: its data, its model, its own step, every ``auto`` decided as the run would."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ganeum import hardware
from ganeum.config import Config
from ganeum.config.change import change
from ganeum.data.batch import Whole
from ganeum.doctor.measured.training import Training
from ganeum.errors import RunError
from ganeum.models import adapters
from ganeum.models.network import Network
from ganeum.models.weights import load_file_state, load_initial, to_file_state
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.step.schedule import learning_rate
from ganeum.step.timings import Timings
from ganeum.train.material import Batches, Material, open_material
from ganeum.train.resolve import resolve
from ganeum.train.settled import Settled
from ganeum.train.start import start
from ganeum.train.trouble import ALL_THE_SAME


@dataclass
class Ours(Training):
    """A training of ours.

    Attributes:
        config: every key resolved.
        taking: what takes its steps.
        material: its data.
    """

    config: Config | None = None
    taking: OptimizerStep | None = None
    material: Material | None = None


@dataclass(frozen=True)
class FromTheFirst:
    """The batches of a run from its first step on, as many times as they are asked for."""

    batches: Batches
    steps: int

    def __iter__(self) -> Iterator[Whole]:
        return (self.batches.whole(step) for step in range(self.steps))


@dataclass(frozen=True)
class HeldOut:
    """What a run holds out, read when it is asked for."""

    material: Material
    config: Config

    def __iter__(self) -> Iterator[Whole]:
        found = self.material.validation(self.config)
        return iter(()) if found is None else iter((found.whole,))


def decide(config: Config) -> tuple[Config, Material]:
    """Every ``auto`` as the run would have it, and the data; what is decided already is taken as it stands.

    The run of that name, if there is one, is not looked at. No pace is measured but for a length in hours.

    Raises:
        GaneumError: the data cannot be read, or it cannot fit.
    """
    if config.train.max_iters is not None:  # in a resolved config other lengths only say where it came from
        config = change(config, dict.fromkeys(("train.epochs", "train.tokens", "train.hours")))
    config = change(config, {"train.eval_only": False})
    material = open_material(config, lambda _: None)
    try:
        return resolve(config, material, hardware.detect(config.device), paced=False).config, material
    except RunError as error:  # a diagnosis has no --force
        error.suggestion = (error.suggestion or "").removesuffix(ALL_THE_SAME)
        raise


def training(config: Config) -> Ours:
    """The training that ``config`` describes, ready for its first step.

    Raises:
        GaneumError: whatever keeps the run from starting.
    """
    decided, material = decide(config)
    taking = start(decided, fill=lambda network: _fill(network, decided))
    taking.model.train()
    every = Settled.of(decided)
    taken, device = 0, taking.device
    # As the loop does, which sums the losses of an epoch on the device.
    losses = torch.zeros((), device=device, dtype=torch.float32 if device.type == "mps" else torch.float64)

    def step(batch: Whole, timings: Timings | None = None) -> Tensor:
        nonlocal taken
        n = min(taken, every.max_iters - 1)
        result = taking.on(
            batch,
            step=n,
            learning_rate=learning_rate(n, decided.train, every.max_iters),
            at_once=every.micro_batch_size,
            timings=timings,
        )
        losses.add_(result.loss)
        taken += 1
        return result.loss

    def timed(batch: Whole) -> Mapping[str, float]:
        timings = Timings(device)
        step(batch, timings)
        return timings.seconds

    adamw = taking.optimizer.parts.get("adamw") if hasattr(taking, "optimizer") else None
    return Ours(
        model=taking.model,
        batches=FromTheFirst(material.batches(decided), every.max_iters),
        step=step,
        optimizer=getattr(adamw, "adamw", None),
        tokens=lambda batch: batch.tokens,  # as the run's log counts them
        tokenizer=material.tokenizer,
        fresh=decided.train.init_from is None and (decided.model.source is None or decided.model.fresh),
        validation=HeldOut(material, decided),
        timed=timed,
        config=decided,
        taking=taking,
        material=material,
    )


def _fill(network: Network, config: Config) -> None:
    """The weights of ``train.init_from``, adapters of its own left as they are drawn."""
    if (init_from := config.train.init_from) is not None:
        fresh = adapters.of(to_file_state(network))
        load_file_state(network, load_initial(init_from, config.model) | fresh, where=init_from)


@dataclass(frozen=True)
class Cut:
    """A whole batch that is cut into its micro-batches already; another size cuts it anew."""

    whole: Whole
    size: int
    parts: tuple[Any, ...]

    @classmethod
    def of(cls, whole: Whole, size: int) -> Cut:
        return cls(whole, size, tuple(whole.micro_batches(size)))

    @property
    def targets(self) -> int:
        return self.whole.targets

    @property
    def tokens(self) -> int:
        return self.whole.tokens

    def __len__(self) -> int:
        return len(self.whole)

    def first(self, sequences: int) -> Whole:
        return self.whole.first(sequences)

    def micro_batches(self, size: int) -> Iterator[Any]:
        return iter(self.parts) if size == self.size else self.whole.micro_batches(size)
