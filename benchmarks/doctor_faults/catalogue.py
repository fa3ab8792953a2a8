"""All faults, and trainings with some of them in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from doctor_faults import habits, organs, second, second_learning, shelves, weather
from doctor_faults.fault import FAULTS
from doctor_faults.subjects import Parts, assembled

FAMILIES = (shelves, habits, organs, weather, second, second_learning)
SECOND = (second.__name__, second_learning.__name__)
LATER = frozenset(name for name, one in FAULTS.items() if one.change.__module__ in SECOND)

# Two at once, whose parts do not lie on top of each other; the subject that both are done to.
PAIRS = {
    ("drowsy_shelf", "twice_told_tale"): "plain",
    ("scribe_at_the_desk", "one_stitch_each"): "windows",
    ("boxes_to_the_brim", "tidy_mind"): "documents",
    ("chatterbox", "drowsy_shelf"): "windows",
    ("straw_reader", "magnifying_glass"): "plain",
    ("keepsake", "boxes_to_the_brim"): "pairs",
    ("muted_endings", "tidy_mind"): "documents",
    ("graded_blanks", "drowsy_shelf"): "pairs",
    ("heavy_thumb", "second_opinion"): "plain",
    ("longhand", "patient_binder"): "windows",
    ("gold_plating", "ledger_keeper"): "plain",
    ("nosy_neighbours", "twice_told_tale"): "windows",
    ("two_left_feet", "pop_quiz"): "windows",
    ("crowded_kitchen", "drowsy_shelf"): "plain",
    ("dutiful_clerk", "returned_bottles"): "plain",
    ("unread_letters", "from_page_one"): "windows",
    ("spelling_bee", "swept_too_soon"): "windows",
}


def parts_of(subject: str, names: Sequence[str], seed: int = 0, without: Sequence[str] = (), **honest: Any) -> Parts:
    """A subject with those faults in; of those that it is ``without`` it has what they need to count."""
    parts = Parts(subject, seed, **honest)
    for name in (*names, *without):
        FAULTS[name].ground(parts)
    for name in names:
        FAULTS[name].change(parts)
    return parts


def training(subject: str, names: Sequence[str] = (), seed: int = 0, **honest: Any) -> Any:
    """A ``ganeum.doctor.Training`` of a subject with those faults in."""
    from ganeum.doctor import Training

    return Training(**assembled(parts_of(subject, names, seed, **honest)), fresh=True)
