"""Faults that make a training learn the wrong thing, found on its own batches, its own model and its own steps.

from ganeum.doctor.examine import examine

for finding in examine(Training(model, loader, step, optimizer, tokenizer=tokenizer)):
    print(finding.text())
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ganeum.doctor.finding import Finding, worst_first

if TYPE_CHECKING:
    from ganeum.doctor.measured.training import Training

__all__ = ["examine"]


def examine(training: Training, batches: int = 4, validation: Iterable[Any] | None = None) -> list[Finding]:
    """Takes some steps of a training and says what is wrong with what it learns from, and how.

    The steps are its own: what its model was given, what its loss compared and what its optimizer was handed are
    watched where torch computes them, so that it does not matter how a batch looks. Then its model is run again on
    those batches: with later tokens changed, and with the padding cut off. Compiled code runs uncompiled meanwhile.
    Afterwards weights, optimizer, random numbers, and whatever else ``step`` refers to that has a ``state_dict``, are
    what they were, bit for bit; only batches that cannot be iterated anew are gone on in.

    Args:
        training: yours, or one of ours.
        batches: so many steps are taken, fewer where there are fewer batches. A few more batches are only read.
        validation: held-out batches, in place of the training's own.

    Returns:
        The gravest first; each seen on this training itself.

    Raises:
        Exception: whatever its ``step`` raises, unless one of the findings explains it.
    """
    from ganeum.doctor.examine import clipping, inputs, labels, repeats, schedule, start, updates
    from ganeum.doctor.examine.rows import known_ids, rows_of
    from ganeum.doctor.examine.state import kept
    from ganeum.doctor.examine.watch import watched

    with kept(training):
        schedules = schedule.of(training)
        seen = watched(training, batches)
        known = known_ids(training)
        passes = [one for one in seen.passes if not one.again]
        rows = [one for one in (rows_of(one, known) for one in passes) if one is not None]
        found = [
            *labels.look(rows, seen, known),
            *inputs.look(rows, seen, known, training.model),
            *repeats.look(rows, seen, training, training.validation if validation is None else validation),
            *updates.look(seen, training),
            *clipping.look(seen),
            *seen.rounding.look(),
            *schedule.look(seen, schedules),
        ]
        sees_ahead = any(one.cause in ("shifted_labels", "causal_leak") for one in found)
        found += start.look(seen, training.fresh, training.model, told=sees_ahead)
    if seen.error is not None and not any(finding.severity == "error" for finding in found):
        raise seen.error
    return list(worst_first(found))
