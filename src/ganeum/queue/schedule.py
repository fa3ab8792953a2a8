"""Which entries start now, which wait, and which have something in the way: worked out from the list alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ganeum.queue.entry import GOING, Entry
from ganeum.queue.placement import Never, Placed, Placement

LONGEST_PAUSE_S = 600.0  # of the queue's own making; one that is longer comes of a clock that was set back

Place = Callable[[Entry, Sequence[Entry]], Placement]


@dataclass
class Decisions:
    """By entry id where not said otherwise.

    Attributes:
        start: in order, each with its place, beside those before it.
        hold: what is in the way of it, which time alone does not mend. free: held, with nothing in the way any more.
        wait: why its turn has not come. device: those of them that wait for a device.
        next_at: when the next time comes that an entry waits for; None where none does.
    """

    start: list[tuple[Entry, Placed]] = field(default_factory=list)
    hold: dict[int, str] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)
    wait: dict[int, str] = field(default_factory=dict)
    device: set[int] = field(default_factory=set)
    next_at: float | None = None


def schedule(
    entries: Sequence[Entry],
    *,
    now: float,
    place: Place,
    token: Callable[[], str],
    in_the_way: Callable[[Entry], str | None] = lambda entry: None,
    only: Collection[int] | None = None,
) -> Decisions:
    """Decide about every entry that is queued or held, or about those of the ids `only`.

    Args:
        entries: all of the list, in the order in which they would start.
        now: seconds since 1970.
        place: where an entry may start beside those that run, and those that are queued with a device: for them it is
            kept.
        token: a new one for each that starts.
        in_the_way: what else keeps an entry that could start now (changed code, say).
    """
    decisions, by_id = Decisions(), {entry.id: entry for entry in entries}
    going = [entry for entry in entries if entry.state in GOING]
    for entry in entries:
        if entry.state not in ("queued", "held") or (only is not None and entry.id not in only):
            continue
        bad, open_ = _dependencies(entry, by_id)
        if bad is not None:
            decisions.hold[entry.id] = bad
            continue
        pause = entry.not_before if entry.not_before and entry.not_before < now + LONGEST_PAUSE_S else None
        later = max((time for time in (entry.at, pause) if time is not None and time > now), default=None)
        if open_ is not None or later is not None:
            decisions.wait[entry.id] = open_ or entry.note
            if later is not None and open_ is None:
                decisions.next_at = later if decisions.next_at is None else min(later, decisions.next_at)
        elif (reason := in_the_way(entry)) is not None:
            decisions.hold[entry.id] = reason
            continue
        else:
            placement = place(entry, going)
            if isinstance(placement, Never):
                decisions.hold[entry.id] = placement.why
                continue
            if isinstance(placement, Placed):
                starting = replace(entry, state="starting", token=token(), device=placement.device)
                going.append(starting)
                decisions.start.append((starting, placement))
            else:
                decisions.wait[entry.id] = placement.why
                decisions.device.add(entry.id)
                if placement.keeps is not None:
                    going.append(replace(entry, device=placement.keeps))
        if entry.state == "held":
            decisions.free.append(entry.id)
    return decisions


def _dependencies(entry: Entry, by_id: Mapping[int, Entry]) -> tuple[str | None, str | None]:
    """What of `after` will never finish by itself, and what has not finished yet."""
    waits = None
    for id in entry.after:
        other = by_id.get(id)
        if other is None:
            return f"after entry {id}, which is not in the queue any more", None
        if other.state in ("failed", "killed", "held", "interrupted"):
            return f"after {other.name} ({id}), which is {other.state}", None
        if other.state != "finished" and waits is None:
            waits = f"after {other.name} ({id}), which is {other.state}"
    return None, waits
