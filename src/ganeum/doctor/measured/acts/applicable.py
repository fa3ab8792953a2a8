"""What an act says where it has nothing to take away."""

from __future__ import annotations


class NotApplicable(Exception):
    """It cannot be done to this training; the text says why."""
