"""What is asked of a backwards plan, and what it answers: models with what a device makes of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ganeum import units
from ganeum.config.schema import Config
from ganeum.hardware.device import Device
from ganeum.plan import emit, scaling_laws
from ganeum.plan.backwards import page
from ganeum.plan.memory import Memory
from ganeum.plan.time import StepTime

CONTEXT, VOCABULARY = 1024, 32_768


@dataclass(frozen=True)
class Question:
    """What is asked; ``tokens``: those to be seen, ``tokens_available``: different ones."""

    device: Device
    hours: float | None = None
    tokens: int | None = None
    parameters: float | None = None
    tokens_available: int | None = None
    context: int = CONTEXT
    vocab_size: int = VOCABULARY
    optimizer: str = "adamw"
    directory: str | None = None

    @property
    def wanted(self) -> float | None:
        """The size that is looked for; None: whichever has the lowest loss."""
        if self.parameters is not None or self.tokens is None:
            return self.parameters
        return scaling_laws.parameters_for(self.tokens)

    @property
    def enough(self) -> int | None:
        """Tokens after which repeating the text teaches nothing; None: there is text without end, or a number of them
        is asked for."""
        if self.tokens is not None or self.tokens_available is None:
            return None
        return scaling_laws.REPEATS * self.tokens_available


@dataclass(frozen=True)
class Planned:
    """What a device makes of a config: ``choices`` for what is ``auto`` in it, {key, value, reason}; a step's time; the
    memory that it needs; seconds of all evaluations."""

    choices: tuple[dict[str, Any], ...]
    step: StepTime
    needed: Memory
    evaluations_s: float


@dataclass(frozen=True)
class Candidate:
    """One model, planned.

    Attributes:
        config: what `ganeum train` takes; what depends on the machine is ``auto`` in it.
        n_params, non_embedding: with and without embeddings.
        planned: what the device makes of it.
        tokens, steps: as many as it sees.
        unique_tokens: different ones; None: all of them are.
        loss: nats a token, with its range; ``extrapolated``: why the laws say little about it, or nothing.
    """

    config: Config
    n_params: int
    non_embedding: int
    planned: Planned
    tokens: int
    unique_tokens: int | None

    @cached_property
    def loss(self) -> scaling_laws.Loss:
        return scaling_laws.loss(self.n_params, self.tokens, self.unique_tokens)

    @property
    def extrapolated(self) -> str:
        vocab_size = self.config.model.vocab_size
        assert isinstance(vocab_size, int), "a search is for one"
        return scaling_laws.extrapolated(self.n_params, self.tokens, self.unique_tokens, vocab_size)

    @property
    def tokens_per_step(self) -> int:
        return self.config.train.batch_size * self.config.model.block_size

    @property
    def steps(self) -> int:
        return self.tokens // self.tokens_per_step

    @property
    def hours(self) -> float:
        return (self.steps * self.planned.step.step_s + self.planned.evaluations_s) / 3600

    def figures(self) -> dict[str, Any]:
        """What is known of it, for a program."""
        model, planned = self.config.model, self.planned
        found: dict[str, Any] = {
            "n_layer": model.n_layer,
            "n_embd": model.n_embd,
            "parameters": self.n_params,
            "tokens": self.tokens,
            "steps": self.steps,
            "hours": self.hours,
            "hours_low": self.steps * planned.step.low / 3600,
            "hours_high": self.steps * planned.step.high / 3600,
            "time_source": planned.step.source,
            "tokens_per_second": planned.step.tokens_per_second,
            "memory_gib": planned.needed.expected / units.GIB,
        }
        if not self.extrapolated:
            found["loss"] = self.loss._asdict() | {"law": "; ".join(law.name for law in scaling_laws.LAWS)}
        return found

    def chosen(self, key: str) -> Any:
        """What became of an ``auto``: `chosen("train.micro_batch_size")`."""
        return next(choice["value"] for choice in self.planned.choices if choice["key"] == key)


@dataclass(frozen=True)
class Answer:
    """``best``, and the models of about half and of about twice its size, where there are such."""

    question: Question
    best: Candidate
    smaller: Candidate | None
    larger: Candidate | None

    @property
    def reasons(self) -> dict[str, str]:
        """Dotted key → why it has its value, for each that the search set."""
        return page.reasons(self)

    def yaml(self) -> str:
        """A config for `ganeum train` and `ganeum plan`, with its reasons as comments."""
        return emit.ganeum(self.best.config, reasons=self.reasons, heading=page.heading(self))

    def as_dict(self) -> dict[str, Any]:
        """For a program: the question, the config, its figures, the choices, and the two neighbours."""
        asked = self.question
        return {
            "question": {
                "device": asked.device.name,
                "hours": asked.hours,
                "tokens": asked.tokens,
                "parameters": asked.parameters,
                "tokens_available": asked.tokens_available,
            },
            "config": self.best.config.model_dump(),
            "choices": [
                *self.best.planned.choices,
                *({"key": key, "reason": why} for key, why in self.reasons.items()),
            ],
            "best": self.best.figures(),
            **{name: one.figures() for name in ("smaller", "larger") if (one := getattr(self, name)) is not None},
        }
