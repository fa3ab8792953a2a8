"""The summary of a night: what ended, what went wrong and why, which trial was best, and what is left."""

from __future__ import annotations

from collections.abc import Sequence

from ganeum import units
from ganeum.queue.entry import Entry
from ganeum.queue.progress import Progress
from ganeum.queue.store import Store
from ganeum.queue.study import best_of


def sentence(entry: Entry, far: Progress) -> str:
    """One line for a message: `exp1 finished: val loss 3.21 after 5,000 steps, 2 h 3 min`."""
    told = {
        "finished": "finished",
        "failed": "failed",
        "killed": "was killed",
        "held": "is held",
        "paused": "is paused",
        "interrupted": "was interrupted",
    }
    facts = []
    if entry.state not in ("finished", "paused"):
        reason = entry.note or (entry.error_tail.strip().splitlines() or [""])[0]
        facts += [reason] * bool(reason)
    if far.val_loss is not None:
        facts.append(f"val loss {far.val_loss:.4f}")
    elif far.loss is not None:
        facts.append(f"loss {far.loss:.4f}")
    if far.step:
        facts.append(units.things(far.step, "step"))
    if far.elapsed_s is not None:
        facts.append(units.duration(far.elapsed_s))
    return f"{entry.name} {told.get(entry.state, entry.state)}" + (f": {', '.join(facts)}" if facts else "")


def bests(store: Store, entries: Sequence[Entry]) -> list[str]:
    """The best trial of every sweep that is over, or of what it has had so far."""
    lines = []
    for sweep in dict.fromkeys(entry.sweep for entry in entries if entry.sweep is not None):
        trials = [entry for entry in store.all() if entry.sweep == sweep]
        if (found := best_of(store, trials)) is not None:
            entry, loss = found
            settings = " ".join(f"{key}={value}" for key, value in (entry.trial or {}).items())
            tried = sum(trial.attempts > 0 for trial in trials)
            so_far = " so far" if any(trial.state not in ("finished", "failed", "killed") for trial in trials) else ""
            lines.append(
                f"best of {sweep}{so_far}: {entry.name}, val loss {loss:.4f} with {settings} "
                f"({tried:,} of {units.things(len(trials), 'trial')} tried)"
            )
    return lines


def headline(ended: Sequence[Entry], left: Sequence[Entry], seconds: float) -> str:
    """`In 8 h 12 min: 3 finished, 1 failed; 2 queued are left.`"""
    names = ("finished", "failed", "killed", "interrupted", "held", "paused", "running", "starting", "queued")

    def counted(entries: Sequence[Entry]) -> str:
        number = {name: sum(entry.state == name for entry in entries) for name in names}
        return ", ".join(f"{many:,} {name}" for name, many in number.items() if many)

    text = f"In {units.duration(seconds)}: {counted(ended) or 'nothing ended'}"
    return text + (f"; {counted(left)} left" if left else "")
