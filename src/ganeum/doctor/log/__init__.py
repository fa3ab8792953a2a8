"""A training log, pasted or a run's own, beside the plan: how slow it is, and what can and cannot explain it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ganeum import units
from ganeum.config import Config
from ganeum.doctor import health, smi
from ganeum.doctor.finding import Finding, Report, worst_first
from ganeum.doctor.log import expected, paces, physics
from ganeum.doctor.log.expected import Expected
from ganeum.doctor.log.read import Form, Log, Span, read
from ganeum.doctor.smi.sample import Reading
from ganeum.hardware.device import Device

__all__ = ["Expected", "Form", "Log", "Span", "read", "report"]

MUCH_SLOWER = 1.25  # times the upper bound of what is expected: below it, bounds and habits explain it
SHARED, OF_PYTHON_S = 3.0, 0.1  # the same on a CPU: times, and seconds of a step beside
WINDOWS = ("C:\\", "PS C:", "/mnt/c/", "WSL", "WDDM", "microsoft-standard")
CONTAINER = "root@"
WAITED, UPDATED = 0.1, 0.3  # of a step: more of it goes to the wait for data, to the update
GPU_SIGNS = ("MHz", "Clocks ", "clocks_", "NVIDIA-SMI")  # that nvidia-smi's output may be pasted with the log
CPU_RATE = 2e12  # FLOP/s, of a CPU of a few cores
MODEST_W = 60.0  # a GPU that multiplies draws more, but the smallest laptops'


def report(
    text: str,
    config: Config | None = None,
    *,
    device: Device | None = None,
    tokens: int | None = None,
    subject: str = "the log",
) -> Report:
    """What the log says, beside the plan of ``config`` on ``device``.

    Args:
        text: the log; nvidia-smi's output in it is read, too.
        config: of the run; None: nothing is expected, and only what the log itself says is told.
        device: it ran on; None: not known, and what is expected is a range over all cards.
        tokens: of the text, where neither its data nor the log says.
        subject: what the answer is about.
    """
    log, reading = read(text), smi.read(text) if any(sign in text for sign in GPU_SIGNS) else Reading()
    tokens = tokens or log.text_tokens
    wanted = expected.of(config, tokens, device) if config is not None else None
    per_epoch = wanted.fast["data"].get("steps_per_epoch") if wanted else None
    best = log.best(per_epoch)
    vocab_size = wanted.fast.get("model", {}).get("vocab_size") if wanted else None
    fresh = config is not None and config.model.source is None and config.train.init_from is None
    findings = list(paces.losses(log, vocab_size, fresh))
    ruled_out: list[str] = []
    if best is None:
        headline = (
            "no times are in it that are known; try more of it: lines with a step and its time or the time of day, "
            "bars of progress, dictionaries, epochs with times"
        )
        return Report(subject=subject, headline=headline, findings=worst_first(findings))
    form, spans = best
    findings += paces.look(form, spans)
    if form != "epochs" and (epochs := log.spans.get("epochs")):
        findings += paces.look("epochs", epochs)
    step_s = paces.usual(spans)
    known = all(span.steps for span in spans)
    run_s = log.total_s or sum(span.seconds for span in spans)
    if reading.samples:
        pasted = health.report(reading, run_s=run_s)
        findings += pasted.findings
        ruled_out += pasted.ruled_out
    findings += list(_parts(log, step_s))
    facts: dict[str, Any] = {
        "form": form,
        "spans": len(spans),
        "step_s": step_s if known else None,
        "middle_half_s": list(paces.spread(spans)) if known else None,
        "run_s": run_s,
        "steps_per_epoch": log.steps_per_epoch or per_epoch,
        "text_tokens": tokens,
        "losses": len(log.losses),
        "parts_s": dict(log.parts) or None,
    }
    if not known:
        headline = f"an epoch takes {units.duration(step_s)}; how many steps that is, a CONFIG and --tokens would say"
        return Report(
            subject=subject, headline=headline, findings=worst_first(findings), ruled_out=tuple(ruled_out), facts=facts
        )
    per_step = _tokens_per_step(spans, wanted)
    headline = f"a step takes {units.duration(step_s)}"
    if per_step:
        headline += f", {per_step / step_s:,.0f} tokens/s"
        facts["tokens_per_second"] = per_step / step_s
    if wanted is not None:
        headline += f"; {_beside(step_s, wanted)}"
        facts["expected_s"] = {"low": wanted.low, "high": wanted.high, "cards": wanted.cards}
        facts["flops_per_step"] = wanted.flops
        facts["times_slower"] = step_s / wanted.high
        if _much_slower(step_s, wanted):
            findings += list(_unexplained(text, log, reading, step_s, wanted))
            ruled_out += _ruled_out(step_s, wanted)
        findings += list(_needless(wanted, step_s))
    else:
        headline += "; what it should take, the config of what was trained would say (behind the log)"
    return Report(
        subject=subject,
        headline=headline,
        findings=worst_first(findings),
        ruled_out=tuple(dict.fromkeys(ruled_out)),
        facts={k: v for k, v in facts.items() if v is not None},
    )


def _parts(log: Log, step_s: float) -> Iterator[Finding]:
    """What a run of ours measured of its own steps: the share that waited for data, and that updated the weights."""
    data, update = log.parts.get("data", 0.0), log.parts.get("optimizer", 0.0)
    if data > WAITED * step_s:
        yield Finding(
            cause="loader",
            title=f"each step waits {units.duration(data)} for its batch",
            evidence=(f"{units.duration(data)} of {units.duration(step_s)}, as its metrics have it",),
            change="data on a local disk; what is done to each row, once and beforehand (`ganeum prepare`)",
            sure="measured",
            size=data / step_s,
            unit="share of the time",
        )
    if update > UPDATED * step_s:
        yield Finding(
            cause="frequent_update",
            title=f"the update of the weights is {update / step_s:.0%} of a step",
            evidence=(f"{units.duration(update)} of {units.duration(step_s)}, as its metrics have it",),
            change="a larger batch with fewer steps, if memory allows",
            severity="note",
            sure="measured",
            size=update / step_s,
            unit="share of the time",
        )


def _tokens_per_step(spans: Sequence[Span], wanted: Expected | None) -> float | None:
    """As the log counts them, else as the config has them."""
    said = [span.tokens / span.steps for span in spans if span.tokens and span.steps]
    if said:
        return said[-1]
    return float(wanted.fast["batch"]["tokens_per_step"]) if wanted else None


def _much_slower(step_s: float, wanted: Expected) -> bool:
    """Beyond what bounds and habits explain; on a CPU also beyond what other programs on its cores take, and what a
    step costs that is no work of its model (Python, the loader), which is most of a small model's."""
    if wanted.fast["device"].get("kind") != "cpu":
        return step_s > MUCH_SLOWER * wanted.high
    return step_s > SHARED * wanted.high and step_s - wanted.high > OF_PYTHON_S


def _beside(step_s: float, wanted: Expected) -> str:
    bounds = f"{units.duration(wanted.low)} to {units.duration(wanted.high)} on {wanted.named()}"
    if _much_slower(step_s, wanted):
        return f"expected are {bounds}: {step_s / wanted.high:.3g} times the most of it"
    if step_s < wanted.low / MUCH_SLOWER:
        return f"expected are {bounds}: faster than the plan thinks possible, so one of the two is about something else"
    return f"expected are {bounds}: its work explains it"


def _unexplained(text: str, log: Log, reading: Reading, step_s: float, wanted: Expected) -> Iterator[Finding]:
    """How much is not explained, and what is large enough to be it."""
    rate, device = wanted.flops / step_s, wanted.fast["device"]
    slowest = f"in fp32 and without compiling at most {units.duration(wanted.high)} would be expected"
    evidence = [
        f"{units.flops(wanted.flops)} in {units.duration(step_s)} are {units.flops(rate)}/s"
        + (f", {rate / wanted.peak:.1%} of what {device['name']} can do" if wanted.peak else ""),
        f"{slowest} ({wanted.plain['device']['name']}; {wanted.plain['time']['source']})",
    ]
    change = "measure the parts of a step: `ganeum train` of the same config writes them to logs/metrics.jsonl"
    if log.parts:
        name, seconds = max(log.parts.items(), key=lambda part: part[1])
        evidence.append(f"the longest part of a step is {name}: {units.duration(seconds)}")
        change = (
            "look at that part first; on a CPU at other programs on its cores (`ganeum gpus --measure` says its pace)"
        )
    yield Finding(
        cause="unexplained_time",
        title=f"{units.duration(step_s - wanted.high)} of each step are not explained by its work",
        evidence=tuple(evidence),
        change=change,
        sure="computed",
        size=step_s / wanted.high,
        interval=(step_s / wanted.high, step_s / wanted.low),
        unit="times as long as its work needs",
    )
    if log.parts:  # what was measured needs no suspects
        return
    yield from _spill(text, log, reading, step_s, wanted)
    drawn = [sample.power_w for sample in reading.samples if sample.power_w is not None]
    if drawn and max(drawn) < MODEST_W:
        yield Finding(
            cause="unexplained_time",
            title="the GPU mostly waits, if the capture was taken while it trained",
            evidence=(
                f"it draws {max(drawn):.0f} W"
                + "".join(f" at {s.sm_mhz:,.0f} MHz" for s in reading.samples[-1:] if s.sm_mhz)
                + ": high clocks and little power are a GPU that waits for memory or the CPU, and does not compute",
            ),
            change="nvidia-smi -l 1 while it trains: utilisation, power, used memory",
            severity="note",
            sure="unconfirmed here",
        )
    batch = wanted.fast["batch"]
    each = (step_s - wanted.high) / batch["batch_size"]
    yield Finding(
        cause="loader",
        title=f"a loader that takes {units.duration(each)} for each row would explain it",
        evidence=(
            "token ids that lie ready need microseconds: that would be a tokenizer, a file or a list gone through anew "
            "for every row",
        ),
        change="time next(iter(loader)) alone; then steps on one batch that is kept",
        severity="note",
        sure="unconfirmed here",
    )
    if rate < CPU_RATE:
        yield Finding(
            cause="on_cpu",
            title=f"{units.flops(rate)}/s are what a CPU of a few cores does",
            evidence=(f"the log says device: {log.device}" if log.device else "the log does not say the device",),
            change="print(next(model.parameters()).device, batch.device) inside the loop; GPU utilisation meanwhile",
            severity="note",
            sure="unconfirmed here",
        )


def _spill(text: str, log: Log, reading: Reading, step_s: float, wanted: Expected) -> Iterator[Finding]:
    """Memory that the driver moved out: possible under Windows, and likely where the first step was fast."""
    windows = any(sign in text for sign in WINDOWS) or any(s.driver_model == "WDDM" for s in reading.samples)
    if not windows:
        return
    peak = wanted.plain.get("memory_gib", {}).get("tensors")
    evidence = ["the text shows Windows" + (", and a container, so WSL" if CONTAINER in text else "")]
    driver = next((sample.driver for sample in reading.samples if sample.driver), "")
    if driver:
        evidence.append(f"driver {driver}: since 536.40 it moves what does not fit into the machine's memory, silently")
    if peak:
        evidence.append(
            f"in fp32 a step needs about {peak:.1f} GiB for tensors, beside the CUDA context and the desktop"
        )
    first = log.first_step_s
    if first is not None and first < step_s / 1.5:
        state = wanted.plain["memory_gib"]["by_component"].get("optimizer", 0.0)
        evidence.append(
            f"the first step, start-up included, took {units.duration(first)}, later ones {units.duration(step_s)}: "
            f"usually the first is the slowest. AdamW's state ({state:.1f} GiB) comes into being with the first update"
        )
    yield Finding(
        cause="spill",
        title="GPU memory that spilled into the machine's memory would explain it",
        evidence=tuple(evidence),
        change="half the micro-batch: if a step then takes far less than half as long, it was this; tied embeddings; "
        "bf16; 'Prefer No Sysmem Fallback' in NVIDIA's control panel makes it an error instead (WSL ignores it)",
        sure="unconfirmed here",
    )


def _ruled_out(step_s: float, wanted: Expected) -> list[str]:
    model, batch = wanted.fast["model"], wanted.fast["batch"]
    length = model.get("block_size") or model.get("length") or 1
    found = physics.suspects(wanted, batch["batch_size"], length)
    return [suspect.sentence(step_s) for suspect in found if suspect.most_s < physics.NOTHING * step_s]


def _needless(wanted: Expected, step_s: float) -> Iterator[Finding]:
    """Steps that the run need not make."""
    data, model = wanted.fast["data"], wanted.fast["model"]
    length, stride, steps = model.get("block_size"), data.get("stride"), data.get("steps")
    if length and stride and stride < length:
        whole = f" of the {units.duration(steps * step_s)} that all {steps:,} steps take" if steps else ""
        yield Finding(
            cause="overlapping_windows",
            title=f"windows of {length} tokens start {stride} apart: an epoch has a token {length / stride:.3g} times",
            evidence=(f"without overlap an epoch is {stride / length:.1%} of the steps{whole}",),
            change="data.stride=auto, and as many epochs as the held-out loss wants",
            sure="computed",
            size=length / stride,
            unit="times the steps of an epoch",
        )
