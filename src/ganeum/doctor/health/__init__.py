"""What limits a GPU now, and what that costs: from samples of it, pasted or live.

A reason that is active says little alone. An idle card caps its power, sleeps at PCIe generation 1 and counts capped
time meanwhile (measured by others on an RTX 2080 SUPER: 0.3 s between two looks, idle, at 38 of 250 W); a capped one
may lose 3 % of its clock or half of it. So an alarm needs a GPU that works, and a cost its clock beside the highest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace

from ganeum import units
from ganeum.doctor.finding import Finding, Report, worst_first
from ganeum.doctor.health import board, clocks, throttle
from ganeum.doctor.health.words import CAPPED, FLAGS, acting, state
from ganeum.doctor.smi.sample import Reading, Sample, merged
from ganeum.hardware.catalogue import find

ASK = "nvidia-smi -q -d PERFORMANCE,CLOCK,POWER,TEMPERATURE,UTILIZATION"
LOOKS: tuple[Callable[[Sequence[Sample]], Iterator[Finding]], ...] = (
    throttle.impossible,
    throttle.braked,
    throttle.capped,
    throttle.at_limit,
    throttle.counted,
    throttle.locked,
    clocks.plateau,
    clocks.dropped,
    clocks.low,
    board.power_source,
    board.memory_errors,
    board.nearly_hot,
    board.link,
    board.lowered,
    board.others,
    board.full,
)


def report(reading: Reading, *, run_s: float | None = None, subject: str = "GPU", live: bool = False) -> Report:
    """All that the samples say.

    Args:
        reading: pasted, or read live.
        run_s: seconds of the run that is asked about: what counted seconds of capping are a share of.
        subject: what the answer is about.
        live: read on this machine, so that what is seen is measured.
    """
    findings = [
        Finding(
            cause="driver",
            title="the driver does not answer",
            evidence=(text,),
            severity="error",
            change="restart the machine; if it stays so, install the driver anew (docs/install.md)",
        )
        for text in reading.failures
    ]
    ruled_out: list[str] = []
    heads: list[str] = []
    gpus = reading.by_gpu()
    for key, said in gpus.items():
        samples = _completed(said)
        found = list(_findings(samples, live))
        if len(gpus) > 1:
            found = [finding.at(_called(key, samples)) for finding in found]
        findings += found
        cleared = list(_cleared(samples, run_s))
        ruled_out += [f"{_called(key, samples)}: {text}" if len(gpus) > 1 else text for text in cleared]
        heads.append(_head(_called(key, samples), samples, found))
    if not reading.samples and not reading.failures:
        heads.append(f"nothing in it is known as nvidia-smi's output; try what `{ASK}` prints while it works")
    return Report(
        subject=subject,
        headline="; ".join(heads),
        findings=worst_first(findings),
        ruled_out=tuple(dict.fromkeys(ruled_out)),
        facts={"gpus": [_facts(said) for said in gpus.values()]},
    )


def _completed(samples: Sequence[Sample]) -> list[Sample]:
    """Each with what stays the same on the card, from whichever says it, and with the clock that its maker promises."""
    lasting = merged(samples)
    found = []
    known = find(lasting.name, lasting.memory_total_mib and lasting.memory_total_mib / 1024) if lasting.name else None
    rated = known.figures["boost_mhz"].high if known and "boost_mhz" in known.figures else None
    for sample in samples:
        missing = {
            name: getattr(lasting, name)
            for name in ("power_limit_w", "power_default_w", "power_max_w", "slowdown_c", "driver_model", "sm_max_mhz")
            if not getattr(sample, name)
        }
        found.append(replace(sample, sm_rated_mhz=rated, **missing))
    return found


def _called(key: str, samples: Sequence[Sample]) -> str:
    name = next((sample.name for sample in samples if sample.name), "")
    return f"{name} ({key})" if name and key and key != name else name or key or "the GPU"


def _head(called: str, samples: Sequence[Sample], found: Sequence[Finding]) -> str:
    alarms = [finding for finding in found if finding.is_alarm]
    if alarms:
        return f"{called}: {worst_first(alarms)[0].title}"
    if all(sample.idle for sample in samples):
        used = max((sample.utilization_percent or 0 for sample in samples), default=0)
        does = f"is hardly used ({used:.0f} %)" if used else "idles"
        return f"{called} {does}: what limits it can only be seen while it works"
    if any(sample.reasons for sample in samples):
        return f"{called}: nothing limits it in what was read"
    return f"{called}: what was read does not say what limits it (`{ASK}` does, while it works)"


def _facts(samples: Sequence[Sample]) -> dict[str, object]:
    return {
        "samples": len(samples),
        **{key: value for key, value in asdict(merged(samples)).items() if value not in (None, "", {}, ())},
    }


def _findings(samples: Sequence[Sample], live: bool) -> Iterator[Finding]:
    for look in LOOKS:
        for finding in look(samples):
            if live and finding.sure == "read":
                finding = replace(finding, sure="measured")
            yield finding


def _cleared(samples: Sequence[Sample], run_s: float | None) -> Iterator[str]:
    """What looks like a fault and is none."""
    counters = {name: seconds for name, seconds in samples[-1].counters_s.items() if seconds > 0}
    if not counters:
        said = [sample for sample in samples if sample.counters_s]
        counters = {name: s for name, s in said[-1].counters_s.items() if s > 0} if said else {}
    for name, seconds in counters.items():
        if run_s:
            share = seconds / run_s
            if share < CAPPED:
                yield (
                    f"{FLAGS.get(name, name)}: {units.duration(seconds)} counted since the driver was loaded; even if "
                    f"all of it fell into the run, that is {share:.2%} of its {run_s:,.0f} s"
                )
                continue
        yield (
            f"{FLAGS.get(name, name)}: {units.duration(seconds)} are counted since the driver was loaded, at rest too; "
            "only what is added while it works would say something"
        )
    for sample in samples:
        if sample.idle and sample.active("sw_power_cap"):
            yield f"SW power cap is active on an idle GPU ({state(sample)}): it does so at rest, and costs nothing"
        if sample.idle and sample.pcie_generation and sample.pcie_generation < (sample.pcie_generation_max or 0):
            yield "PCIe at a lower generation than it could: an idle GPU saves power so, under load it rises"
        share = (sample.memory_mhz or 0) / (sample.memory_max_mhz or 1)
        if sample.performance_state == "P2" and 0.9 <= share < 1:
            yield (
                f"memory at {sample.memory_mhz:,.0f} of {sample.memory_max_mhz:,.0f} MHz in P2: "
                "GeForce cards compute so"
            )
    awake = [sample for sample in samples if sample.reasons and not sample.idle]
    if awake and not any(acting(sample) for sample in awake):
        yield "throttling: no reason is active that would hold the clocks down" + (
            "" if any(sample.busy for sample in awake) else " (whether it was at work is not said)"
        )
