"""Memory in closed form: how many bytes a step takes at its fullest moment, part by part, and which moment that is."""

from ganeum.plan.execution import LOSS_CHUNK
from ganeum.plan.memory.first_estimate import evaluation, training
from ganeum.plan.memory.parts import Activations, Memory
from ganeum.plan.memory.total import of

__all__ = ["LOSS_CHUNK", "Activations", "Memory", "evaluation", "of", "training"]
