"""What happened to a run on its way: starts anew, less memory than was thought, an end before the end, torn records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, log

from ganeum.doctor.compare import crowd, interval
from ganeum.doctor.compare.side import Side
from ganeum.doctor.compare.stretch import Stretch
from ganeum.doctor.finding import Finding


def findings(*sides: Side) -> Iterator[Finding]:
    """Notes: what makes one run into two that are not alike."""
    for side in sides:
        if side.lowered is not None:
            yield _lowered(side, *side.lowered)
        for start in sorted({*side.starts} - {0}):
            if (changed := _changed_at(side, start)) is not None:
                yield changed


def sentences(*sides: Side) -> Iterator[str]:
    """What was left out, and what could not be read; of sides as they came, with all their steps."""
    for side in sides:
        if again := side.starts[1:]:
            at = ", ".join(f"{start:,}" for start in sorted({*again}))
            times = f" {len(again)} times" if len(again) > 1 else ""
            yield f"{side.name} was started again{times} at step {at}: the first step of each start is left out"
        if (ended := _ended(side)) is not None:
            yield f"{side.name} {ended}"
        if side.broken:
            lines = "line of its metrics" if side.broken == 1 else "lines of its metrics"
            yield f"{side.name}: {side.broken} {lines} could not be read, left out"
        if side.unread is not None:
            yield f"{side.name}: its config.yaml could not be read, so settings are not compared: {side.unread}"


def _ended(side: Side) -> str | None:
    """None: as it should, or that is not recorded."""
    status = side.status
    if status is None or status.state in ("finished", "queued"):
        return None
    reached = f"step {max((one.step for one in side.stretches), default=status.step):,}"
    if (total := side.config.train.max_iters if side.config is not None else None) is not None:
        reached += f" of {total:,}"
    if status.state == "interrupted":
        return f"was interrupted at {reached}: what it logged until then is compared"
    if status.state == "failed":
        why = str(status.error or "").split("\n")[0]
        return f"failed after {reached}: what it logged until then is compared" + (f" ({why})" if why else "")
    if status.is_alive():
        return f"is being trained, at {reached}: what it has logged so far is compared"
    return f"ended without a word after {reached} (killed, or trained on another machine): what it logged is compared"


def _lowered(side: Side, step: int, size: int) -> Finding:
    meant = side.config.train.micro_batch_size if side.config is not None else None
    many = "sequence" if size == 1 else "sequences"
    return Finding(
        cause="small_micro_batch",
        title=f"{side.name} ran out of memory: from step {step:,} on {size} {many} at once"
        + (f" in place of {meant}" if meant else ""),
        evidence=("its config does not say that; the two are compared over all their steps",),
        change=f"train.micro_batch_size={size} in both, or `ganeum doctor memory` for what makes more fit",
        severity="note",
        sure="read",
    )


def _changed_at(side: Side, start: int) -> Finding | None:
    """Its pace was surely another one from a later start on; None: not surely."""
    per_token = side.tokens is not None
    before, after = ([one for one in side.stretches if (one.step > start) is later] for later in (False, True))
    samples = [
        interval.blocks([value for one in some if (value := one.per_token() if per_token else one.per_step())])
        for some in (before, after)
    ]
    if min(len(sample) for sample in samples) < interval.FEWEST:
        return None
    found = interval.apart(*([log(value) for value in sample] for sample in reversed(samples)))
    if not found.excludes(interval.floor(samples[0]) + interval.floor(samples[1])):
        return None
    assert found.interval is not None
    low, high = (exp(end) for end in found.interval)
    return Finding(
        cause="unexplained_time",
        title=f"{side.name} was another one after its start at step {start:,}: {exp(found.by):.3g} ({low:.3g} to "
        f"{high:.3g}) times as long for a {'token' if per_token else 'step'} as before",
        evidence=(
            "environment.json is of its first start: a machine, versions or variables that changed are not in it",
            *_company(before, after),
        ),
        change="a run that was never moved or changed; or both once more, one after the other",
        severity="note",
        sure="measured",
    )


def _company(before: Sequence[Stretch], after: Sequence[Stretch]) -> Iterator[str]:
    earlier, later = (crowd.share(some) for some in (before, after))
    if earlier is not None and later is not None and max(earlier, later) > crowd.QUIET:
        yield f"other programs had {earlier:.0%} of the machine's processors before, {later:.0%} after"
