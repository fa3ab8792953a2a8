"""Clocks that are low although no reason is given: a firmware's budget, a fall, a setting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean, median, pstdev

from ganeum.doctor.finding import Finding
from ganeum.doctor.health.throttle import telemetry_is_wrong
from ganeum.doctor.health.words import SMALL, acting, clock_loss, of_looks, power, warmth, worst
from ganeum.doctor.health.words import clocks as clock_words
from ganeum.doctor.smi.sample import Sample, merged

LOW = 0.6  # of the maximal clock, without a reason; boost clocks of a warm card lie well above it
PLATEAU, PLATEAU_SAMPLES, PLATEAU_BELOW = 0.03, 8, 0.75  # power that varies less, seen so often, below such a share
DROP, DROP_SAMPLES = 0.12, 3  # of the clock, lasting so many samples, while it stays busy


def plateau(samples: Sequence[Sample]) -> Iterator[Finding]:
    """A budget of the laptop's firmware: power that stands still far below every limit, and no flag."""
    busy = [sample for sample in samples if sample.busy and sample.power_w is not None]
    if len(busy) < PLATEAU_SAMPLES or any(acting(sample) for sample in busy):
        return
    powers = [sample.power_w or 0.0 for sample in busy]
    lasting = merged(list(samples))
    limit = max((x for x in (lasting.power_limit_w, lasting.power_max_w) if x), default=None)
    losses = [loss for sample in busy if (loss := clock_loss(sample)) is not None]
    if limit is None or pstdev(powers) > PLATEAU * fmean(powers) or fmean(powers) > PLATEAU_BELOW * limit:
        return
    if losses and median(losses) <= SMALL:
        return
    yield Finding(
        cause="firmware_budget",
        title=f"power stands still at {fmean(powers):.0f} W of {limit:.0f} W, and no reason is given",
        evidence=(
            f"{len(busy)} busy samples between {min(powers):.1f} and {max(powers):.1f} W",
            *(clock_words(worst(busy))),
            "a laptop's firmware, or its charger, sets such a budget without telling the driver",
        ),
        change="the performance mode of the laptop's maker, its own charger, nvidia-powerd under Linux",
        severity="warning",
        sure="unconfirmed here",
        size=median(losses) if losses else None,
        unit="share of its highest clock" if losses else "",
    )


def dropped(samples: Sequence[Sample]) -> Iterator[Finding]:
    """A clock that fell, and stayed low, while the GPU was busy all the time."""
    busy = [sample for sample in samples if sample.busy and sample.sm_mhz]
    if len(busy) < 2 * DROP_SAMPLES or any(sample.idle for sample in samples[samples.index(busy[0]) :]):
        return
    before = max(
        median([s.sm_mhz or 0 for s in busy[at : at + DROP_SAMPLES]]) for at in range(len(busy) - DROP_SAMPLES)
    )
    last = busy[-DROP_SAMPLES:]
    after = max(sample.sm_mhz or 0 for sample in last)
    if after > (1 - DROP) * before:
        return
    high = [sample for sample in busy if sample.sm_mhz == before and sample.power_w]
    low = [sample for sample in last if sample.power_w]
    evidence = [f"{before:,.0f} → {after:,.0f} MHz, at {busy[-1].utilization_percent:.0f} % utilisation"]
    if high and low:
        evidence.append(f"power {high[-1].power_w:.0f} → {low[-1].power_w:.0f} W")
    evidence += list(warmth(busy[-1]))
    less = bool(high and low) and (low[-1].power_w or 0) < (high[-1].power_w or 0)
    yield Finding(
        cause="firmware_budget" if less else "low_clock",
        title="the clock fell while the GPU stayed busy, and did not come back",
        evidence=tuple(evidence),
        change="look what changed at that moment: the charger, the maker's power mode, a power limit; nvidia-smi -q -d "
        "PERFORMANCE then names a reason, or none does and it is the firmware's budget",
        severity="warning",
        sure="unconfirmed here",
        size=1 - after / before,
        unit="share of its clock lost",
    )


def low(samples: Sequence[Sample]) -> Iterator[Finding]:
    """A busy GPU at a fraction of its clock, and nothing says why."""
    if telemetry_is_wrong(samples):
        return
    busy = [sample for sample in samples if sample.busy and sample.reasons]  # else nothing says that none is given
    without = [sample for sample in busy if not acting(sample) and (clock_loss(sample) or 0) > 1 - LOW]
    if not without or len(without) * 2 < len(busy):
        return
    sample = without[-1]
    set_ = sample.sm_set_mhz if sample.sm_set_mhz and abs(sample.sm_set_mhz - (sample.sm_mhz or 0)) < 30 else None
    yield Finding(
        cause="locked_clocks" if set_ else "low_clock",
        title="the GPU is busy at a fraction of its clock"
        + (", to which it was set" if set_ else ", and no reason is given"),
        evidence=(
            *clock_words(sample),
            *power(sample),
            f"at {sample.utilization_percent:.0f} % utilisation{of_looks(without, samples)}",
        ),
        change="nvidia-smi -rgc and nvidia-smi -rac (as root), which give back clocks that somebody fixed"
        + ("" if set_ else "; else restart; on a laptop its performance mode and its own charger"),
        severity="warning",
        sure="read" if set_ else "unconfirmed here",
        size=clock_loss(sample),
        unit="share of its clock lost",
    )
