"""The summary of a night: what ended, what went wrong and why, which trial was best, and what is left."""

from __future__ import annotations

from collections.abc import Sequence

from ganeum import units
from ganeum.queue.entry import Entry
from ganeum.queue.progress import Progress, progress
from ganeum.queue.store import Store
from ganeum.queue.study import best_of

ERROR_LINES = 12
TROUBLES, RESULTS = 8, 5  # lines of the summary: it is read on a phone
STATES = ("finished", "failed", "killed", "held", "interrupted", "paused", "running", "starting", "queued")
NEEDS_SOMEBODY = ("failed", "held", "interrupted", "paused", "killed")
TOLD = {
    "finished": "finished",
    "failed": "failed",
    "killed": "was killed",
    "held": "is held",
    "paused": "is paused",
    "interrupted": "was interrupted",
    "queued": "is queued again",
}


def sentence(entry: Entry, far: Progress) -> str:
    """One line for a message: `exp1 finished: val loss 3.2100, 5,000 steps, 2 h 3 min`."""
    reason = "" if entry.state == "finished" else entry.note or (entry.error_tail.strip().splitlines() or [""])[0]
    facts = []
    if far.val_loss is not None:
        facts.append(f"val loss {far.val_loss:.4f}")
    elif far.loss is not None:
        facts.append(f"loss {far.loss:.4f}")
    if far.step:
        facts.append(units.things(far.step, "step"))
    if far.elapsed_s is not None:
        facts.append(units.duration(far.elapsed_s))
    if entry.micro_batch_size is not None and entry.state == "finished":
        facts.append(f"{entry.micro_batch_size} sequences at once, since memory had run out")
    results = ", ".join(facts)
    said = f"{reason} ({results})" if reason and results else reason or results
    return f"{entry.name} {TOLD.get(entry.state, entry.state)}" + (f": {said}" if said else "")


def night(store: Store, lead: str, ended: Sequence[Entry], left: Sequence[Entry], also: str = "") -> str:
    """All that is worth knowing in the morning: the headline, what needs somebody, the best trials, the best runs.

    Args:
        lead: of the headline: `In 8 h 12 min`.
        ended: what it is about. left: what is still to come.
        also: what else the headline says.
    """
    told = [(entry, progress(store.run(entry), entry) if entry.attempts else Progress()) for entry in ended]
    troubles = [(entry, far) for state in NEEDS_SOMEBODY for entry, far in told if entry.state == state]
    results = [(entry, far) for entry, far in told if entry.state == "finished" and entry.sweep is None]
    results.sort(key=lambda one: (one[1].val_loss is None, one[1].val_loss or 0.0))
    return "\n".join(
        [
            headline(lead, ended, left) + (f"; {also}" if also else ""),
            *_some(troubles, TROUBLES),
            *bests(store, ended),
            *_some(results, RESULTS),
        ]
    )


def headline(lead: str, ended: Sequence[Entry], left: Sequence[Entry]) -> str:
    """`In 8 h 12 min: 3 finished, 1 failed; 2 queued left`"""
    text = f"{lead}: {counted(ended) or 'nothing ended'}"
    return text + (f"; {counted(left)} left" if left else "")


def counted(entries: Sequence[Entry]) -> str:
    """`3 finished, 1 failed`; nothing where there are none."""
    number = {name: sum(entry.state == name for entry in entries) for name in STATES}
    return ", ".join(f"{many:,} {name}" for name, many in number.items() if many)


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


def error(entry: Entry) -> list[str]:
    """The lines of its error: one of ours from its first line on, else the last ones that were printed."""
    lines = entry.error_tail.rstrip().splitlines()
    begins = [number for number, line in enumerate(lines) if line.split(":")[0].endswith(("Error", "MissingExtra"))]
    is_ours = begins and not any(line.startswith("Traceback ") for line in lines)
    return lines[begins[-1] :][:ERROR_LINES] if is_ours else lines[-ERROR_LINES:]


def _some(told: Sequence[tuple[Entry, Progress]], most: int) -> list[str]:
    lines = [sentence(entry, far) for entry, far in told[:most]]
    return lines + [f"and {counted([entry for entry, _ in told[most:]])} more"] * (len(told) > most)
