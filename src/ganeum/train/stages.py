"""Stages before training, for other programs' pipelines: `split(…)`, the examples as tokens, with some held out."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from ganeum.config.given import Given, taken


def split(config: Given, *overrides: str, section: str | None = None, stream: TextIO | None = None) -> dict[str, Any]:
    """Makes tokens of what `data.train` and `data.val` name, for `train(…)` to find; what is there already stays.

    Args:
        config, overrides, section, stream: as `ganeum.train` takes them.
    Returns:
        What plan.json says under `data`: examples, those held out, lengths, how many were cut.
    Raises:
        GaneumError: anything the user can act on.
    """
    wanted = taken(config, overrides, section=section, say=lambda text: print(text + "\n", file=stream or sys.stdout))
    from ganeum.data.examples.examples import open_examples

    return open_examples(wanted, lambda text: print(text, file=stream or sys.stdout)).describe(wanted)
