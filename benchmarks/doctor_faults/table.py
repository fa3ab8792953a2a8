"""docs/doctor_accuracy.md and benchmarks/results/doctor-faults.json, from the campaign's results."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from doctor_faults.cases import Case
from doctor_faults.verdict import known

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "doctor_accuracy.md"
SUMMARY = ROOT / "benchmarks" / "results" / "doctor-faults.json"
HEAD = """# How right the doctor is

Faults were put into small trainings from outside, `ganeum doctor run` was asked, and what it said is compared with an
A/B of our own, ten times as long as the doctor's contest and without any of its code. Those who wrote the faults had
not read the doctor's measuring code, and no name of a fault stands in it (a test looks).

The trainings take 5 to 20 ms a step on one core: a GPT in plain torch, transformers' GPT-2 over windows and over padded
documents, transformers' T5; and runs of ours. A fault that costs time is *due* when its true size is above twice the
noise floor that this diagnosis saw. Its size is right when the time that the doctor says it costs is within 20 % of the
true time, or within the noise floor. Faults of learning and of memory are always due.

"""


def write(lines: Sequence[Mapping[str, Any]]) -> None:
    """The page and the summary, from the newest result of each case."""
    newest = list({line["case"]: line for line in lines}.values())
    done = [line for line in newest if not line["failed"]]
    clean = [line for line in done if not line["faults"]]
    faulty = [line for line in done if line["faults"]]
    verdicts = [verdict for line in faulty for verdict in line["verdicts"]]
    due = [one for one in verdicts if one["due"]]
    sized = [one for one in due if one.get("near") is not None]
    named = [one for one in verdicts if one["named"]]
    surplus = [one for line in faulty for one in line["surplus"]]
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
        "other_alarms": len(surplus),
        "clean": len(clean),
        "clean_with_alarm": [line["case"] for line in clean if line["surplus"]],
        "disturbed": sum(line["others"] > 0.05 for line in done),
        "median_seconds": median(line["seconds"] for line in done) if done else None,
        "minutes": sorted({line["minutes"] for line in newest}),
    }
    SUMMARY.write_text(json.dumps({"summary": summary, "cases": newest}, ensure_ascii=False, indent=1) + "\n")
    PAGE.write_text("\n".join([*_page(summary, faulty, clean), ""]))
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
    yield f"| size within 20 % or the noise floor | {summary['sized_right']} of {summary['sized']} |"
    right, other = summary["right_alarms"], summary["other_alarms"]
    yield f"| precision: alarms of faulty trainings that name a fault put in | {right} of {right + other} |"
    silent = summary["clean"] - len(summary["clean_with_alarm"])
    yield f"| trainings without a fault that raise no alarm | {silent} of {summary['clean']} |"
    if summary["disturbed"]:
        yield f"| diagnoses during which other programs had more than 5 % of the core | {summary['disturbed']} |"
    if summary["failed"]:
        yield f"| diagnoses that failed | {len(summary['failed'])} |"
    yield ""
    yield "## Fault by fault"
    yield ""
    yield "*true*: how many times as fast the training is without it, by the A/B; *said*: by the doctor."
    yield ""
    yield "| fault | training | true | said | floor | |"
    yield "|---|---|---:|---:|---:|---|"
    for line in sorted(faulty, key=lambda one: (len(one["faults"]), one["own"])):
        case = Case(line["subject"], tuple(line["faults"]), own=line["own"])
        for verdict in line["verdicts"]:
            kind = known(case, verdict["fault"]).kind
            others = [known(case, name).kind for name in line["faults"] if name != verdict["fault"]]
            kind += f" (with: {others[0]})" if others else ""
            where = ("ours, " if line["own"] else "") + line["subject"]
            true = f"{verdict['true']:.2f}" if verdict.get("true") else ""
            said = f"{verdict['said']:.2f}" if verdict.get("said") else ""
            yield f"| {kind} | {where} | {true} | {said} | {verdict['floor']:.1%} | {_word(verdict)} |"
    others = [(line, one) for line in [*faulty, *clean] for one in line["surplus"]]
    if others:
        yield ""
        yield "## Alarms that name no fault that was put in"
        yield ""
        yield "| training | alarm | size |"
        yield "|---|---|---:|"
        for line, one in others:
            size = f"{one['size']:.2f} {one['unit'] or ''}".rstrip() if one["size"] else ""
            kinds = " and ".join(known(Case(line["subject"], own=line["own"]), name).kind for name in line["faults"])
            yield f"| {line['subject']}, {kinds or 'nothing wrong'} | {one['title']} | {size} |"


def _word(verdict: Mapping[str, Any]) -> str:
    if not verdict["due"]:
        return "named, below what is due" if verdict["named"] else "too small to be due"
    if not verdict["named"]:
        return "**missed**"
    if verdict.get("near") is None:
        return "named"
    return "named, size right" if verdict["near"] else f"named, cost off by {verdict['off']:+.0%}"
