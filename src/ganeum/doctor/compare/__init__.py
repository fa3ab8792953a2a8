"""A training beside another: where its time goes that the other's does not, what of it the two records explain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import exp, log
from typing import Any

from ganeum.doctor.compare import checklist, crowd, gap, history, machines, settings, stretch
from ganeum.doctor.compare.crowd import Crowd
from ganeum.doctor.compare.gap import Gap, Part
from ganeum.doctor.compare.machines import Changed
from ganeum.doctor.compare.settings import COMPUTING, EVERYTHING, Difference
from ganeum.doctor.compare.side import Side, of_log, of_metrics, of_run, section
from ganeum.doctor.compare.stretch import number
from ganeum.doctor.finding import Finding, Report, worst_first

__all__ = ["Side", "of_log", "of_metrics", "of_run", "report"]

DEFAULT = {
    "data": "loader",
    "forward": "unexplained_time",
    "backward": "unexplained_time",
    "optimizer": "slow_optimizer",
    "other": "unexplained_time",
    "outside": "too_often",
}
TRY = {
    "data": "data on a local disk, and ready as tokens; `ganeum doctor run` measures what a kept batch gains",
    "forward": "`ganeum doctor run` takes causes away one at a time; `ganeum doctor gpu` looks at the clocks",
    "backward": "`ganeum doctor run` takes causes away one at a time; `ganeum doctor gpu` looks at the clocks",
    "optimizer": "`ganeum doctor run` measures the update by itself",
    "other": "what is done between steps: logging, callbacks, other programs on the same cores",
    "outside": "train.eval_interval, train.checkpoint_interval, sample.interval; less of each",
}
SAME_FACTOR = 0.10  # forward and backward that grew by factors this near have one reason
EXPLAINED = 0.8  # of a factor, as a logarithm
UNTOLD = ": another program on the same machine does that, too, and these records do not show it"
WAITING = 0.5  # of a factor, as a logarithm
UNEVEN = 0.2  # of runs that show nothing by showing no difference
PADDED = 0.02  # more of what is computed


def report(run: Side, baseline: Side, tokens: int | None = None) -> Report:
    """What lies between them, ranked.

    Args:
        run: the one in question. baseline: what it is held against.
        tokens: of the run's text, for its plan, where its data is not here.
    """
    notes, past = list(history.findings(run, baseline)), list(history.sentences(run, baseline))
    run, baseline, company = crowd.undisturbed(run, baseline)
    ours, theirs = stretch.alike(run.stretches, baseline.stretches)
    run, baseline = replace(run, stretches=ours), replace(baseline, stretches=theirs)
    found = gap.between(run, baseline, company.excuses if company else (0.0, 0.0))
    differences: list[Difference] = []
    if run.config is not None and baseline.config is not None:
        known = tokens or number(section(run.plan, "data").get("tokens"))
        same = settings.Same.of(run.plan, baseline.plan)
        count = None if known is None else round(known)
        differences = settings.differences(run.config, baseline.config, run.device(), count, same)
    changed = list(machines.changed(run, baseline))
    findings = [*_work(run, baseline, found), *_padding(run, baseline, found), *_clocks(run, baseline, found)]
    findings += [*_parts(run, baseline, found, differences, changed), *_company(company, found)]
    checks = list(checklist.checks(run, baseline, found))
    findings += [*_failed(checks, differences), *notes]
    table = gap.table(found, run.name, baseline.name)
    facts: dict[str, Any] = {
        "baseline": baseline.name,
        "steps": {"run": sum(s.steps for s in run.stretches), "baseline": sum(s.steps for s in baseline.stretches)},
        "step_s": {"run": run.step_s, "baseline": baseline.step_s},
        "tokens_per_step": {"run": run.tokens, "baseline": baseline.tokens},
        "padding": {"run": run.padding, "baseline": baseline.padding},
        "gap": found.as_dict(),
        "settings": {one.key: one.as_dict() for one in differences},
        "machine": {one.what: {"run": one.run, "baseline": one.baseline} for one in changed},
        "other_programs": company.as_dict() if company else None,
        "clocks": {"run": machines.at_work(run), "baseline": machines.at_work(baseline)},
        "checklist": [check.as_dict() for check in checks],
    }
    return Report(
        subject=f"{run.name} beside {baseline.name}",
        headline=_headline(found, company) + _otherwise(run, baseline, changed),
        findings=worst_first(findings),
        ruled_out=(
            *_same(run, baseline, found, differences, changed),
            *past,
            *(company.sentences(run.name, baseline.name) if company else ()),
        ),
        without_effect=tuple(_without_effect(found, differences)),
        drawn="\n\n".join([table, "\n".join(check.line() for check in checks)]),
        facts=facts,
    )


def _headline(found: Gap, company: Crowd | None) -> str:
    per = "for a token" if found.per_token else "for a step (tokens are not said, so shapes may differ)"
    between = "" if not found.known else f" ({found.low:.3g} to {found.high:.3g})"
    told = f"it takes {found.step:.3g}{between} times as long {per}"
    if not found.known:
        return f"{told}; too few steps are logged for an interval, so that is no more than a hint"
    if not (found.is_slower or found.is_faster):
        if company is not None and found.is_excused:
            return f"not comparable: {told}, but {company.sentence()}{_at_work(found)}"
        told += f", and such runs differ by {exp(found.floor) - 1:.1%} from themselves"
        if company is not None and max(company.shares) > crowd.QUIET:
            told += f"; {company.sentence()}{_at_work(found)}"
        return f"no measurable difference: {told}{_whole(found)}"
    return told + _whole(found)


def _at_work(found: Gap) -> str:
    """What no company makes of it: processor seconds, which shared cores stretch, and waiting for one does not."""
    if found.cpu is None:
        return ""
    return f"; its processors were at work for {found.cpu[0] / found.cpu[1]:.2f} times as long"


def _whole(found: Gap) -> str:
    """Where what is beside the steps turns the answer."""
    if found.whole is None or abs(log(found.whole / found.step)) < log(gap.OTHERWISE):
        return ""
    return f"; with evaluations, samples and checkpoints {found.whole:.3g} times"


def _otherwise(run: Side, baseline: Side, changed: Sequence[Changed]) -> str:
    told = [f"on another device ({one.sentence()})" for one in changed if one.what == "device"]
    return "".join(f"; {one}" for one in (*told, *settings.otherwise(run.plan, baseline.plan)))


def _parts(
    run: Side,
    baseline: Side,
    found: Gap,
    differences: Sequence[Difference],
    changed: Sequence[Changed],
) -> Iterator[Finding]:
    """A finding for each part that takes longer, or for some with one reason, with what of the records acts on it."""
    explained = _explained(run, baseline)
    silent = run.config is None or baseline.config is None or not (run.environment and baseline.environment)
    alone = crowd.on_gpu(run, baseline) or (run.told_company and baseline.told_company)
    groups = _together(found, differences, changed)
    for parts in groups:
        names = {one.name for one in parts}
        acting = [one for one in differences if names & set(one.parts) and one.matters]
        variables = [one for one in changed if one.cause and names & set(EVERYTHING)]
        machine = [one for one in changed if not one.cause and names & set(EVERYTHING)]
        causes = [*(one.cause for one in acting), *(one.cause for one in variables)]
        cause = next(filter(None, causes), DEFAULT[parts[0].name])
        ratio = parts[0].ratio
        if names & set(COMPUTING) and ratio is not None and EXPLAINED * log(ratio) < log(explained):
            continue
        evidence = [*(one.sentence() for one in acting), *(one.sentence() for one in (*variables, *machine))]
        if not evidence and not silent:
            evidence.append(
                "neither their configs nor what they ran on differ in anything that acts on it"
                + ("" if run.told_company and baseline.told_company else UNTOLD)
            )
        if found.cpu is not None and parts is groups[0] and found.is_slower:
            evidence.append(_waits_or_works(found))
        change = [f"{one.key}={settings.typed(one.baseline)}" for one in acting]
        change += [f"{one.what}={one.baseline}" if one.baseline else f"{one.what} not set" for one in variables]
        sure = bool(acting or variables) or alone
        yield _finding(found, parts, cause, evidence, change, sure=sure)


def _waits_or_works(found: Gap) -> str:
    """Whether the longer time is work of its processors."""
    assert found.cpu is not None
    times = found.cpu[0] / found.cpu[1]
    told = f"its processors are at work for {times:.2f} times as long"
    if log(max(times, 1)) < WAITING * log(found.step):
        return f"{told}: most of the difference is waiting"
    return f"{told}, too" if times < found.step ** (1 + WAITING) else f"{told}: more threads, which wait at work"


def _together(found: Gap, differences: Sequence[Difference], changed: Sequence[Changed]) -> Sequence[tuple[Part, ...]]:
    """Parts that take longer, those of one reason together: the same keys act on them, or forward and backward grew by
    about one factor."""
    told = [part for part in gap.parts_that_matter(found) if part.apart.by > 0]
    alike = _alike(told)
    variables = [one.what for one in changed if one.cause]
    groups: dict[object, tuple[Part, ...]] = {}
    for part in told:
        keys = [one.key for one in differences if part.name in one.parts and one.matters]
        keys += variables if part.name in EVERYTHING else []
        reason = "computing" if part in alike else tuple(keys) or part.name
        groups[reason] = (*groups.get(reason, ()), part)
    return list(groups.values())


def _finding(
    found: Gap, parts: Sequence[Part], cause: str, evidence: Sequence[str], change: Sequence[str], *, sure: bool
) -> Finding:
    """``sure``: whether it is an alarm, where it is large; else other programs could have been all there is to it."""
    by = sum(part.apart.by for part in parts)
    names = " and ".join(gap.WORDS[part.name] for part in parts)
    ours, theirs = sum(part.run for part in parts), sum(part.baseline for part in parts)
    times = f"{ours / theirs:.3g} times as long as in the baseline" if theirs > 0 else "nothing in the baseline"
    gains = sum(part.apart.by for part in found.parts if part.apart.by > 0)
    share = f", {by / gains:.0%} of what it takes longer"
    intervals = [part.apart.interval for part in parts]
    between = None
    if len(parts) == 1 and intervals[0] is not None:
        between = (intervals[0][0] / found.run_s, intervals[0][1] / found.run_s)
    name = parts[0].name
    return Finding(
        cause=cause,
        title=f"{names}: {times}{share}",
        evidence=tuple(evidence),
        change=("as the baseline has it: " + " ".join(change)) if change else TRY[name],
        severity="warning" if sure and by > 0.05 * found.run_s and (found.is_slower or name == "outside") else "note",
        sure="measured",
        size=by / found.run_s,
        interval=between,
        unit="share of the time",
    )


def _alike(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Forward and backward, where both grew by about one factor; empty where they did not."""
    pair = {part.name: part for part in parts if part.name in COMPUTING}
    ratios = [part.ratio for part in pair.values()]
    if len(pair) == 2 and None not in ratios and abs(log(ratios[0] / ratios[1])) < SAME_FACTOR:  # type: ignore[operator]
        return tuple(pair[name] for name in COMPUTING)
    return ()


def _explained(run: Side, baseline: Side) -> float:
    """How many times as long computing takes by what is known: more work, more padding, a lower clock."""
    times = settings.work(run.plan, baseline.plan)
    if times is None:  # of models that are not the same, a plan has the padding in it
        padded = run.padding is not None and baseline.padding is not None and run.padding < 1
        times = (1 - baseline.padding) / (1 - run.padding) if padded else 1.0  # type: ignore[operator]
    return times / (machines.clock_ratio(run, baseline) or 1.0)


def _work(run: Side, baseline: Side, found: Gap) -> Iterator[Finding]:
    """Another model: more arithmetic for a token."""
    work = settings.work(run.plan, baseline.plan)
    if work is None or abs(log(work)) < log(1.05):
        return
    ours, theirs = (side.plan["flops"]["per_token"] for side in (run, baseline))
    slower = found.is_slower and work > 1
    yield Finding(
        cause="more_work",
        title=f"a token is {work:.3g} times as much arithmetic: the two are not the same work",
        evidence=(
            f"{ours:,.3g} FLOP beside {theirs:,.3g} (their plans); the rest of the factor {found.step:.3g} is "
            f"{found.step / work:.3g}",
        ),
        change="compare it with a run of the same model and context" if slower else "",
        severity="warning" if slower else "note",
        sure="computed",
        size=work,
        unit="times the work",
    )


def _padding(run: Side, baseline: Side, found: Gap) -> Iterator[Finding]:
    """More places are computed for a token."""
    ours, theirs = run.padding, baseline.padding
    if ours is None or theirs is None or ours - theirs < PADDED or ours >= 1:
        return
    times = (1 - theirs) / (1 - ours)
    yield Finding(
        cause="padding",
        title=f"{ours:.0%} of what it computes is padding, the baseline's {theirs:.0%}",
        evidence=(f"for each other token {times:.3g} times as many are computed",),
        change="data.batching=buckets, or packed: rows of like length together",
        severity="warning" if found.is_slower else "note",
        sure="measured",
        size=1 - 1 / times,
        unit="share of what is computed",
    )


def _clocks(run: Side, baseline: Side, found: Gap) -> Iterator[Finding]:
    """A GPU of the same model whose clock is lower."""
    ratio = machines.clock_ratio(run, baseline)
    if ratio is None or ratio > machines.LOWER:
        return
    ours = machines.at_work(run) or {}
    reasons = ours.get("throttle_reasons") or {}
    cause = "thermal" if any("thermal" in name for name in reasons) else "power_cap" if reasons else "low_clock"
    yield Finding(
        cause=cause,
        title=f"the GPU works at {ratio:.0%} of the baseline's clock",
        evidence=(*machines.clocks(run, baseline), *(f"{name}: {s:,.0f} s" for name, s in reasons.items())),
        change="`ganeum doctor gpu` while it trains says what holds it down",
        severity="warning" if found.step > 1 else "note",
        sure="measured",
        size=1 - ratio,
        unit="share of the time, at most, of what the GPU computes",
    )


def _company(company: Crowd | None, found: Gap) -> Iterator[Finding]:
    """Other programs, where they may be what lies between the two."""
    if company is None or not found.is_excused:
        return
    yield Finding(
        cause="other_processes",
        title=f"other programs alone can make {exp(company.excuses[found.step < 1]):.2g} times of it",
        evidence=(company.sentence(),),
        change="both once more while nothing else runs; `ganeum doctor run` measures by turns, so that both have it",
        severity="note",
        sure="measured",
    )


def _failed(checks: Sequence[checklist.Check], differences: Sequence[Difference]) -> Iterator[Finding]:
    """What is wrong beside the time."""
    for check in checks:
        if check.verdict == "bad" and check.cause not in (None, "unexplained_time"):
            assert check.cause is not None
            acting = [one for one in differences if one.acts_on_learning] if check.cause == "learning" else []
            change = " ".join(f"{one.key}={settings.typed(one.baseline)}" for one in acting)
            yield Finding(
                cause=check.cause,
                title=f"{check.what}: {check.why}",
                evidence=tuple(
                    f"{one.key}: {settings.typed(one.run)}, the baseline {settings.typed(one.baseline)}"
                    for one in acting
                ),
                change=f"as the baseline has it: {change}" if change else "",
                severity="note"
                if check.cause == "gradient_norm"
                else "warning"
                if check.cause == "learning"
                else "error",
                sure="measured",
            )


def _without_effect(found: Gap, differences: Sequence[Difference]) -> Iterator[str]:
    """Keys that do nothing by their plans; where nothing was measured either, those that could have."""
    alike = found.known and not (found.is_slower or found.is_faster or found.is_excused) and found.floor < UNEVEN
    for one in differences:
        if not one.matters:
            yield one.sentence()
        elif alike and set(one.parts) & set(EVERYTHING):
            yield f"{one.sentence()}; no difference was measured"


def _named(parts: Sequence[Part]) -> str:
    return ", ".join(gap.WORDS[part.name] for part in parts)


def _same(
    run: Side, baseline: Side, found: Gap, differences: Sequence[Difference], changed: Sequence[Changed]
) -> Iterator[str]:
    """What the records exclude, and what they cannot tell."""
    alike = [part for part in found.parts if not found.matters(part)]
    noise = [part for part in alike if part.apart.excludes() and found.share(part) > gap.NOTHING]
    if noise:
        company = " and other programs" if max(found.excuses) > 0 else ""
        yield f"{_named(noise)}: longer, but no more than noise{company} can make it"
    if rest := [part for part in alike if part not in noise and found.known]:
        yield f"{_named(rest)}: no measurable difference, or one that is too small to matter"
    if run.config is not None and baseline.config is not None and not differences:
        yield "the config: no key differs but the run's name and length"
    if run.environment and baseline.environment and not changed:
        yield "versions, device, driver and variables: the same"
    lines = machines.clocks(run, baseline)
    if lines and (machines.clock_ratio(run, baseline) or 1.0) > machines.LOWER:
        yield "; ".join(lines)
