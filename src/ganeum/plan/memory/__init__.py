"""Memory in closed form: how many bytes a step takes at its fullest moment, part by part, and which moment that is."""

from ganeum.plan.memory.parts import Memory
from ganeum.plan.memory.total import of

__all__ = ["Memory", "of"]
