"""What holds the clocks down by the driver's own word: temperature, power, a brake, somebody's setting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from ganeum.doctor.finding import Finding, Severity
from ganeum.doctor.health.words import (
    CAPPED,
    FLAGS,
    NEAR_LIMIT,
    SMALL,
    acting,
    clock_loss,
    clocks,
    of_looks,
    power,
    power_share,
    state,
    warmth,
    worst,
)
from ganeum.doctor.smi.sample import Sample

IMPOSSIBLE, IMPOSSIBLE_W = 1.5, 40.0  # times any limit, and so much above it: no card draws that for a second


def impossible(samples: Sequence[Sample]) -> Iterator[Finding]:
    """A power that no card of such a limit can draw: its sensors, and what is steered by them, are wrong."""
    for sample in samples:
        limits = [limit for limit in (sample.power_limit_w, sample.power_default_w, sample.power_max_w) if limit]
        if sample.power_w is None or not limits:
            continue
        most = max(limits)
        if sample.power_w > IMPOSSIBLE * most and sample.power_w > most + IMPOSSIBLE_W:
            loss = clock_loss(sample)
            evidence = [f"{sample.power_w:.0f} W on a card that may draw {most:.0f} W: a sensor's error, no real power"]
            if loss is not None and loss > SMALL:
                evidence += clocks(sample)
            evidence += [f"{FLAGS[name]} is active, by that reading" for name in acting(sample)]
            yield Finding(
                cause="telemetry",
                title="the power reading is impossible, and the GPU is steered by it",
                evidence=tuple(evidence),
                change="another driver version (the one before), then the firmware of the laptop or board",
                severity="error",
                size=loss,
                unit="share of its clock lost" if loss is not None else "",
            )
            return


def telemetry_is_wrong(samples: Sequence[Sample]) -> bool:
    return any(True for _ in impossible(samples))


def braked(samples: Sequence[Sample]) -> Iterator[Finding]:
    """The hardware's own reasons, and the temperature's."""
    if telemetry_is_wrong(samples):
        return
    for reason, cause, title, change in (
        (
            "hw_power_brake_slowdown",
            "power_brake",
            "the power brake holds the GPU down",
            "power supply and cables (each plug its own), the server's settings (BMC, iDRAC); a laptop's own charger",
        ),
        (
            "hw_thermal_slowdown",
            "thermal",
            "the GPU slows itself down because it is too hot",
            "stop, and cool it: fans, dust, air; by this reason clocks are halved at least",
        ),
        (
            "sw_thermal_slowdown",
            "thermal",
            "its temperature holds the clocks down",
            "air, fans, a lower power limit; with GDDR6X it is often the memory, whose temperature Linux hides",
        ),
    ):
        acting = [sample for sample in samples if sample.active(reason)]
        awake = [sample for sample in acting if not sample.idle]
        if awake:
            sample = worst(awake)
            hard = reason != "sw_thermal_slowdown"
            evidence = [f"{FLAGS[reason]} is active" + of_looks(awake, samples)]
            evidence += list(clocks(sample)) + list(warmth(sample))
            yield Finding(
                cause=cause,
                title=title,
                evidence=tuple(evidence),
                change=change,
                severity="error" if hard else "warning",
                size=clock_loss(sample),
                unit="share of its clock lost" if clock_loss(sample) is not None else "",
            )
        elif acting and reason == "hw_power_brake_slowdown":
            yield Finding(
                cause=cause,
                title="the power brake is asserted while the GPU idles",
                severity="note",
                evidence=(f"{FLAGS[reason]} is active at {state(acting[-1])}",),
                sure="unconfirmed here",
                change="look again while it trains: some cards assert it at rest, a fault keeps it on under load",
            )
    plain = [
        sample
        for sample in samples
        if sample.active("hw_slowdown")
        and not sample.active("hw_power_brake_slowdown")
        and not sample.active("hw_thermal_slowdown")
        and not sample.idle
    ]
    if plain:
        held = len(plain) >= 2 or (plain[0].busy and (clock_loss(plain[0]) or 0) > SMALL)
        severity: Severity = "warning" if held else "note"
        yield Finding(
            cause="hardware_slowdown",
            title="the hardware slows the GPU down and gives no reason",
            severity=severity,
            evidence=(f"HW slowdown is active{of_looks(plain, samples)}", *clocks(worst(plain))),
            change="look again under load: it is active for a moment at every change of clocks",
            size=clock_loss(worst(plain)),
            unit="share of its clock lost" if clock_loss(worst(plain)) is not None else "",
        )


def capped(samples: Sequence[Sample]) -> Iterator[Finding]:
    """The power limit, where the card works, draws what it may and its clock is lower for it."""
    if telemetry_is_wrong(samples):
        return
    acting = [sample for sample in samples if sample.active("sw_power_cap") and not sample.idle]
    if not acting:
        return
    sample = worst(acting)
    at_limit = [one for one in acting if power_share(one) is not None and (power_share(one) or 0) >= NEAR_LIMIT]
    losses = [loss for one in acting if (loss := clock_loss(one)) is not None]
    loss = median(losses) if losses else None
    evidence = [f"SW power cap is active{of_looks(acting, samples)}", *power(sample), *clocks(sample)]
    unknown = sample.power_w is None or not sample.power_limit_w
    alarm = bool(at_limit) and sample.busy and loss is not None and loss > SMALL
    if not at_limit and not unknown:
        evidence.append("it draws less than its limit: the flag alone is no proof of a limited run")
    yield Finding(
        cause="power_cap",
        title="the power cap is active"
        if not at_limit
        else "the power limit is reached, above the clock that its maker promises"
        if loss == 0
        else "the power limit holds the clocks down",
        evidence=tuple(evidence),
        change="a higher limit where the maker allows one (nvidia-smi -pl, as root), or nothing: the last tenth of the "
        "power buys few percent of speed"
        if at_limit and loss != 0
        else "",
        severity="warning" if alarm else "note",
        size=loss if at_limit and loss else None,
        interval=(0.0, loss) if at_limit and loss else None,
        unit="share of its highest clock, at most of the speed" if at_limit and loss else "",
    )


def at_limit(samples: Sequence[Sample]) -> Iterator[Finding]:
    """A busy card at its power limit, of which no reason was read: the table has none."""
    if telemetry_is_wrong(samples) or any("sw_power_cap" in sample.reasons for sample in samples):
        return
    full = [sample for sample in samples if sample.busy and (power_share(sample) or 0) >= NEAR_LIMIT]
    if full:
        yield Finding(
            cause="power_cap",
            title="it draws what it may: the power limit may hold its clocks down",
            evidence=(*power(worst(full)), *clocks(worst(full)), *warmth(worst(full))),
            change="nvidia-smi -q -d PERFORMANCE,CLOCK while it works says whether, and how much",
            severity="note",
            sure="unconfirmed here",
        )


def counted(samples: Sequence[Sample]) -> Iterator[Finding]:
    """Time that was capped between two looks, both of them at a working GPU."""
    timed = [sample for sample in samples if sample.time_s is not None and sample.counters_s and not sample.idle]
    if len(timed) < 2 or any(sample.idle for sample in samples):
        return
    first, last = timed[0], timed[-1]
    wall = (last.time_s or 0) - (first.time_s or 0)
    if wall <= 0 or not (first.busy and last.busy):
        return
    if len({sample.time_s for sample in timed}) < len(timed):  # two cards of one name: whose counter is whose?
        return
    for name, cause in (
        ("sw_power_cap", "power_cap"),
        ("sw_thermal_slowdown", "thermal"),
        ("hw_thermal_slowdown", "thermal"),
        ("hw_power_brake_slowdown", "power_brake"),
    ):
        gained = last.counters_s.get(name, 0.0) - first.counters_s.get(name, 0.0)
        share = gained / wall
        if not CAPPED <= share <= 1.1:
            continue
        loss = clock_loss(last)
        small = name == "sw_power_cap" and ((loss is None or loss <= SMALL) or (power_share(last) or 0) < NEAR_LIMIT)
        yield Finding(
            cause=cause,
            title=f"{FLAGS[name]} for {share:.0%} of the time that was watched",
            evidence=(f"its counter gained {gained:.1f} s in {wall:.1f} s", *power(last), *clocks(last)),
            change="" if cause == "power_cap" else "air and fans" if cause == "thermal" else "power supply and cables",
            severity="note" if small else "warning",
            size=None if loss is None else loss * min(share, 1.0),
            unit="" if loss is None else "share of its highest clock, at most of the speed",
        )


def locked(samples: Sequence[Sample]) -> Iterator[Finding]:
    """Clocks that were set, where that is the active reason."""
    acting = [sample for sample in samples if sample.active("applications_clocks_setting") and not sample.idle]
    if not acting:
        return
    loss = clock_loss(worst(acting))
    alarm = loss is not None and loss > SMALL and worst(acting).busy
    yield Finding(
        cause="locked_clocks",
        title="the clocks are those that somebody set",
        evidence=(f"applications clocks setting is active{of_looks(acting, samples)}", *clocks(worst(acting))),
        change="nvidia-smi -rac and nvidia-smi -rgc (as root)",
        severity="warning" if alarm else "note",
        size=loss,
        unit="share of its clock lost" if loss is not None else "",
    )
