"""docs/doctor_accuracy.md and benchmarks/results/doctor-faults.json, from the campaign's results."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from doctor_faults.cases import Case, all_cases
from doctor_faults.verdict import judged, known, surplus

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "doctor_accuracy.md"
SUMMARY = ROOT / "benchmarks" / "results" / "doctor-faults.json"
HEAD = """# How right the doctor is

Faults were put into small trainings from outside, `ganeum doctor run` was asked, and what it said is compared with an
A/B of our own, ten times as long as the doctor's contest and without any of its code. No name of a fault stands in the
doctor's code (a test looks).

The faults were written before their author had read the doctor's measuring code. Then the campaign was run, and every
answer that was missed, off or too much was looked into by someone who had read it:

- *The doctor was wrong, and was mended:* both sides of a contest had unlike batches, so that padded ones had floors
  of more than 10 %; a copy of the model that is replaced in every step was told as tensors that pile up; a graph
  without a backward pass was told as kept; a second pass on the same rows, hooks of an optimizer, and a profiler that
  is switched on again in every step were not seen; rows of unlike lengths were not dealt out where batches have
  widths of their own. The trainings that showed it were run again, the others were not: the column *doctor* has the
  commit that answered.
- *The campaign was wrong:* its A/B compared eager attention, math attention and the for-loop optimizer with trainings
  of other rows. Some true names were missing from the right answers of a fault: passes that nothing is learnt from (for
  an evaluation every few steps), a copied state (a checkpoint every step), hooks (numbers taken out of every gradient),
  parameters without gradient (all labels masked).
- *A note counts for one fault:* a tiny micro-batch is told with its size, as a note, since larger ones change what is
  learnt. All other notes count for nothing, neither here nor as false alarms.
- *An alarm that names no fault put in may be true:* where our own A/B of that change confirms it, with its whole
  interval above the floor, it is no false alarm.

The trainings take 5 to 60 ms a step on one core: a GPT in plain torch, transformers' GPT-2 over windows and over padded
documents, transformers' T5; and runs of ours. A fault that costs time is *due* when its true size is above twice the
noise floor that this diagnosis saw (the median of the run against itself, at least 1 %). Its size is right when the
share of the time that the doctor says it costs is within 20 % of the true share, or within the noise floor. Faults of
learning and of memory are always due.

"""


def write(lines: Sequence[Mapping[str, Any]]) -> None:
    """The page and the summary, from the newest result of each case."""
    newest = [_judged_anew(line) for line in {line["case"]: line for line in lines}.values()]
    done = [line for line in newest if not line["failed"]]
    clean = [line for line in done if not line["faults"]]
    faulty = [line for line in done if line["faults"]]
    verdicts = [verdict | {"noise": line["facts"]["noise"]} for line in faulty for verdict in line["verdicts"]]
    due = [one for one in verdicts if one["due"]]
    sized = [one for one in due if one.get("near") is not None]
    named = [one for one in verdicts if one["named"]]
    extra = [one for line in faulty for one in line["surplus"]]
    others = [one for one in extra if not one.get("confirmed")]
    plain = [one for one in due if one["harm"] == "speed" and math.log(one["true"]) > 2 * one["noise"]]
    summary = {
        "machine": {"processor": platform.processor() or platform.machine(), "python": platform.python_version()},
        "dates": sorted({line["at"][:10] for line in newest}),
        "kinds": len({name for line in faulty for name in line["faults"]}),
        "cases": len(newest),
        "failed": [line["case"] for line in newest if line["failed"]],
        "pairs": sum(len(line["faults"]) > 1 for line in faulty),
        "due": len(due),
        "due_and_named": sum(one["named"] for one in due),
        "sized": len(sized),
        "sized_right": sum(one["near"] for one in sized),
        "right_alarms": len(named),
        "due_above_the_interval": len(plain),
        "due_above_the_interval_and_named": sum(one["named"] for one in plain),
        "other_alarms": len(others),
        "other_alarms_confirmed": len(extra) - len(others),
        "clean": len(clean),
        "clean_with_alarm": [line["case"] for line in clean if not all(map(_confirmed, line["surplus"]))],
        "clean_with_confirmed_alarm": [
            line["case"] for line in clean if line["surplus"] and all(map(_confirmed, line["surplus"]))
        ],
        "disturbed": sum(line["others"] > 0.05 for line in done),
        "median_seconds": median(line["seconds"] for line in done) if done else None,
        "minutes": sorted({line["minutes"] for line in newest}),
    }
    SUMMARY.write_text(json.dumps({"summary": summary, "cases": newest}, ensure_ascii=False, indent=1) + "\n")
    PAGE.write_text("\n".join([*_page(summary, faulty, clean), *_left_out(newest), ""]))
    print(json.dumps(summary, indent=2, ensure_ascii=False))


def _page(summary: Mapping[str, Any], faulty: Sequence[Any], clean: Sequence[Any]) -> Iterable[str]:
    dates = " and ".join(summary["dates"])
    minutes = " or ".join(f"{value:g}" for value in summary["minutes"])
    yield (
        HEAD
        + f"`python benchmarks/doctor_faults.py`, {dates}, two cores of an AMD EPYC, each diagnosis on one of them with"
    )
    yield f"`--minutes {minutes}`; a diagnosis took {summary['median_seconds'] or 0:.0f} s in the middle."
    yield ""
    yield "| | |"
    yield "|---|---|"
    alone = len(faulty) - summary["pairs"]
    yield f"| kinds of faults; trainings with one, with two | {summary['kinds']}; {alone}, {summary['pairs']} |"
    yield f"| recall: due faults that an alarm names | {summary['due_and_named']} of {summary['due']} |"
    much, seen = summary["due_above_the_interval"], summary["due_above_the_interval_and_named"]
    yield f"| of those that cost time, above twice the noise that the doctor told (an interval) | {seen} of {much} |"
    yield f"| size within 20 % or the noise floor | {summary['sized_right']} of {summary['sized']} |"
    right, other = summary["right_alarms"], summary["other_alarms"]
    yield f"| precision: alarms of faulty trainings that name a fault put in | {right} of {right + other} |"
    if summary["other_alarms_confirmed"]:
        yield f"| alarms beside them that our own A/B confirms | {summary['other_alarms_confirmed']} |"
    silent = summary["clean"] - len(summary["clean_with_alarm"])
    yield f"| trainings without a fault that raise no false alarm | {silent} of {summary['clean']} |"
    if summary["clean_with_confirmed_alarm"]:
        count = len(summary["clean_with_confirmed_alarm"])
        yield f"| of these, with an alarm that our own A/B confirms | {count} |"
    if summary["disturbed"]:
        yield f"| diagnoses during which other programs had more than 5 % of the core | {summary['disturbed']} |"
    if summary["failed"]:
        yield f"| diagnoses that failed | {len(summary['failed'])} |"
    yield ""
    yield "## Fault by fault"
    yield ""
    yield "*true*: how many times as fast the training is without it, by the A/B; *said*: by the doctor."
    yield ""
    yield "| fault | training | true | said | floor | | doctor |"
    yield "|---|---|---:|---:|---:|---|---|"
    for line in sorted(faulty, key=lambda one: (len(one["faults"]), one["own"])):
        case = Case(line["subject"], tuple(line["faults"]), own=line["own"])
        for verdict in line["verdicts"]:
            kind = known(case, verdict["fault"]).kind
            others = [known(case, name).kind for name in line["faults"] if name != verdict["fault"]]
            kind += f" (with: {others[0]})" if others else ""
            where = ("ours, " if line["own"] else "") + line["subject"]
            true = f"{verdict['true']:.2f}" if verdict.get("true") else ""
            said = f"{verdict['said']:.2f}" if verdict.get("said") else ""
            floor = f"{verdict['floor']:.1%}"
            yield f"| {kind} | {where} | {true} | {said} | {floor} | {_word(verdict)} | {line['doctor']} |"
    others = [(line, one) for line in [*faulty, *clean] for one in line["surplus"]]
    if others:
        yield ""
        yield "## Alarms that name no fault that was put in"
        yield ""
        yield "| training | alarm | size | our own A/B |"
        yield "|---|---|---:|---|"
        for line, one in others:
            size = f"{one['size']:.2f} {one['unit'] or ''}".rstrip() if one["size"] else ""
            kinds = " and ".join(known(Case(line["subject"], own=line["own"]), name).kind for name in line["faults"])
            real = one.get("truth")
            ours = f"{real['times']:.2f} ({real['low']:.2f} to {real['high']:.2f}) times" if real else "not known"
            yield f"| {line['subject']}, {kinds or 'nothing wrong'} | {one['title']} | {size} | {ours} |"


def _judged_anew(line: Mapping[str, Any]) -> dict[str, Any]:
    """By today's right answers of its faults: a result may be older."""
    if line["failed"]:
        return dict(line)
    case = Case(line["subject"], tuple(line["faults"]), line["seed"], line["honest"], line["own"])
    truths = line.get("truths", {})
    raced = {one["cause"]: {key: one[key] for key in ("confirmed", "truth") if key in one} for one in line["surplus"]}
    verdicts = [judged(case, name, line, truths.get(name)) for name in case.faults]
    alarms = [{**one, **raced.get(one["cause"], {})} for one in surplus(case, line, line["others"])]
    return {**line, "verdicts": verdicts, "surplus": alarms}


def _left_out(done: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """What the campaign has and nobody has run."""
    there = {line["case"] for line in done}
    left = [case for case in all_cases() if case.name not in there]
    if not left:
        return
    yield ""
    yield "## Not run"
    yield ""
    alone = [case for case in left if len(case.faults) == 1]
    for where, cases in (
        ("trainings of others", [case for case in alone if not case.own]),
        ("runs of ours", [case for case in alone if case.own]),
    ):
        if cases:
            yield f"- {where}: " + ", ".join(known(case, case.faults[0]).kind for case in cases)
    if pairs := sum(len(case.faults) > 1 for case in left):
        yield f"- {pairs} pairs"
    if clean := sum(not case.faults for case in left):
        yield f"- {clean} trainings without a fault"


def _confirmed(alarm: Mapping[str, Any]) -> bool:
    return bool(alarm.get("confirmed"))


def _word(verdict: Mapping[str, Any]) -> str:
    if not verdict["due"]:
        return "named, below what is due" if verdict["named"] else "too small to be due"
    if not verdict["named"]:
        return "**missed**"
    if verdict.get("near") is None:
        return "named"
    return "named, size right" if verdict["near"] else f"named, cost off by {verdict['off']:+.0%}"
