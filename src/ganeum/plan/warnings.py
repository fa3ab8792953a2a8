"""What a person should know before pressing Enter; :mod:`ganeum.plan.critique` under its first name."""

from ganeum.plan.critique import Facts, Warning, of

__all__ = ["Facts", "Warning", "of"]
