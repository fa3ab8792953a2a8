"""What is left to the limit of the device, when everything that helps was taken."""

from __future__ import annotations

from contextlib import suppress

from ganeum.config import Config
from ganeum.config.change import change
from ganeum.doctor.measured import answer
from ganeum.doctor.measured.answer import Course
from ganeum.doctor.measured.worker import Gone, Workers
from ganeum.errors import GaneumError


def find(workers: Workers, course: Course) -> None:
    """Sets ``course.limit``, where it lies above what was reached."""
    config = workers.subject
    found = _planned(config, course) if isinstance(config, Config) else _counted(workers, course)
    if found is not None and found[0] > course.rate * course.gain:
        course.limit = found


def _planned(config: Config, course: Course) -> tuple[float, str] | None:
    """Of a run of ours: tokens per second at the best, by the plan of what was reached."""
    from ganeum.plan.library import plan

    with suppress(GaneumError):
        planned = plan(change(config, answer.keys(course))).get("time", {})
        if "low" in planned:  # else nothing says how fast this device is
            rate = planned["tokens_per_second"] * planned["step_s"] / planned["low"]
            return rate, "at the best, by the plan of what was reached"
    return None


def _counted(workers: Workers, course: Course) -> tuple[float, str] | None:
    """Of somebody's own training: by the products that are counted in steps of what was reached."""
    try:
        with workers.start([stair.remedy for stair in course.stairs]) as best:
            course.facts["products"] = found = best.limit()
    except Gone as gone:
        course.failed.append(f"what the device could do was not found out: {gone}")
        return None
    return (found["tokens_per_second"], found["words"]) if found["tokens_per_second"] else None
