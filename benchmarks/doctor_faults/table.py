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
from doctor_faults.catalogue import LATER
from doctor_faults.verdict import DISTURBED, judged, known, surplus

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "doctor_accuracy.md"
SUMMARY = ROOT / "benchmarks" / "results" / "doctor-faults.json"
EFFECTS = ROOT / "benchmarks" / "results" / "doctor-faults-effects.json"
LARGE = 1.1  # times slower, by the lower end of the interval
HEAD = """# How right the doctor is

Faults were put into small trainings from outside, `ganeum doctor run` was asked, and what it said is compared with an
A/B of our own, ten times as long as the doctor's contest and without any of its code. No name of a fault stands in the
doctor's code (a test looks).

The faults were written before their author had read the doctor's measuring code. Then the campaign was run, and every
answer that was missed, off or too much was looked into by someone who had read it; so these faults have taught the
doctor, and how it does on faults that have not is a section of its own:

- *The doctor was wrong, and was mended:* both sides of a contest had unlike batches, so that padded ones had floors
  of more than 10 %; a copy of the model that is replaced in every step was told as tensors that pile up; a graph
  without a backward pass was told as kept; a second pass on the same rows, hooks of an optimizer, and a profiler that
  is switched on again in every step were not seen; rows of unlike lengths were not dealt out where batches have
  widths of their own; later: a second pass on other rows, short contests with too few pairs, vocabularies far larger
  than the text's, other programs that have the core, memory of shapes not met before told as growth, and evaluations
  measured otherwise than a run does them. Then all was run once more; the column *doctor* has the commit that answered.
- *The campaign was wrong:* its A/B compared eager attention, math attention and the for-loop optimizer with trainings
  of other rows. Some true names were missing from the right answers of a fault: passes that nothing is learnt from (for
  an evaluation every few steps), a copied state (a checkpoint every step), hooks (numbers taken out of every gradient),
  parameters without gradient (all labels masked). Two processes of one program differ by some percent, by where their
  memory lies, so one pair of them is no truth for a small fault (one race gave 1.23, 1.27, 1.29, 1.31 and 1.32): a race
  now has three rounds of new processes. Faults patched into our own runs were raced against nothing, and their
  checkpoints on a disk whose fsync took 0.4 ms in one minute and 9 ms in another; they now write to memory.
- *A note counts for one fault:* a tiny micro-batch is told with its size, as a note, since larger ones change what is
  learnt. All other notes count for nothing, neither here nor as false alarms.
- *An alarm that names no fault put in may be true:* where our own A/B of that change confirms it, with its whole
  interval above the floor, it is no false alarm.

The trainings take 5 to 60 ms a step on one core: a GPT in plain torch, transformers' GPT-2 over windows and over padded
documents, transformers' T5; and runs of ours. A fault that costs time is *due* when its true size is above twice the
noise floor that this diagnosis saw (the median of the run against itself, at least 1 %). Its size is right when the
share of the time that the doctor says it costs, and the factor, are within 20 % of the true ones, or the share is
within the noise floor of the true one; an alarm of a fault that costs time is wrong in size when it says none. Faults
of learning and of memory are always due. When a case was run again on the same commit, its first answer counts.

"""


SECOND = """
## Kinds that were written after the doctor was finished

Their author had read the catalogue of causes and nothing of the code that measures or looks; their right answers were
fixed before, some without a cause of their own in the catalogue; that each does harm was seen without the doctor
(`python -m doctor_faults.effect`). Three looks came into the doctor in the same hour, from others who had not seen
these kinds: hooks that pile up, loops of Python over small pieces (`python_loop`), and what a step does beside learning
(`beside_learning`). The last was added to the right answers after the first answers had named it, with the right size,
for a metric in Python and a tracker. The kinds count in no figure above, and here the first answer to each counts,
whatever was mended since.
"""


def write(lines: Sequence[Mapping[str, Any]]) -> None:
    """The page and the summary, from the newest result of each case."""
    answers = [_judged_anew(line) for line in newest(lines)]
    first, again = (
        [line for line in answers if bool(LATER.intersection(line["faults"])) is later] for later in (False, True)
    )
    unseen = {line["case"]: line for line in reversed(lines) if LATER.intersection(line["faults"])}
    later = [_judged_anew(unseen[line["case"]]) for line in again]
    done = [line for line in answers if not line["failed"]]
    summary = {
        "machine": {"processor": platform.processor() or platform.machine(), "python": platform.python_version()},
        "dates": sorted({line["at"][:10] for line in answers}),
        "minutes": sorted({line["minutes"] for line in answers}),
        "median_seconds": median(line["seconds"] for line in done) if done else None,
        "commits": sorted({line["doctor"] for line in answers}),
        "run_again": len(lines) - len(answers),
        **counted(first),
        "second": counted(later),
        "second_since": counted(again),
    }
    SUMMARY.write_text(json.dumps({"summary": summary, "cases": answers}, ensure_ascii=False, indent=1) + "\n")
    PAGE.write_text("\n".join([*_page(summary, first, later), *_left_out(answers), ""]))
    print(json.dumps(summary, indent=2, ensure_ascii=False))


def newest(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A result for each case: of the commit that answered last, its first that did not fail, since an answer that may
    be asked for until it is right proves nothing."""
    kept: dict[str, Mapping[str, Any]] = {}
    for line in lines:
        before = kept.get(line["case"])
        if before is None or before["failed"] or before["doctor"] != line["doctor"] or "dirty" in line["doctor"]:
            kept[line["case"]] = line
    return list(kept.values())


def counted(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What came of some cases. A diagnosis that failed has missed what was to be found, and was not silent."""
    done = [line for line in lines if not line["failed"]]
    clean, faulty = ([line for line in lines if bool(line["faults"]) is there] for there in (False, True))
    kinds = {known(_case(line), name).kind for line in faulty for name in line["faults"]}
    verdicts = [
        verdict | {"noise": line.get("facts", {}).get("noise")} for line in faulty for verdict in line["verdicts"]
    ]
    due = [one for one in verdicts if one["due"]]
    sized = [one for one in due if one.get("near") is not None]
    extra = [one for line in faulty for one in line["surplus"]]
    others = [one for one in extra if not one.get("confirmed")]
    timed = [one for one in verdicts if one.get("true")]
    plain = [one for one in timed if one["due"] and math.log(one["true"]) > 2 * one["noise"]]
    large = [one for one in timed if one["low"] >= LARGE]
    alarmed = [line["case"] for line in clean if line["failed"] or not all(map(_confirmed, line["surplus"]))]
    return {
        "kinds": len(kinds),
        "cases": len(lines),
        "failed": [line["case"] for line in lines if line["failed"]],
        "faulty": len(faulty),
        "pairs": sum(len(line["faults"]) > 1 for line in faulty),
        "due": len(due),
        "due_and_named": sum(one["named"] for one in due),
        "sized": len(sized),
        "sized_right": sum(one["near"] for one in sized),
        "right_alarms": sum(one["named"] for one in verdicts),
        "due_above_the_interval": len(plain),
        "due_above_the_interval_and_named": sum(one["named"] for one in plain),
        "large": len(large),
        "large_and_named": sum(one["named"] for one in large),
        "other_alarms": len(others),
        "other_alarms_confirmed": len(extra) - len(others),
        "clean": len(clean),
        "clean_with_alarm": alarmed,
        "clean_with_confirmed_alarm": [
            line["case"] for line in clean if line["case"] not in alarmed and line["surplus"]
        ],
        "disturbed": sum(line["others"] > DISTURBED for line in done),
    }


def _page(summary: Mapping[str, Any], first: Sequence[Any], later: Sequence[Any]) -> Iterable[str]:
    dates = " and ".join(summary["dates"])
    minutes = " or ".join(f"{value:g}" for value in summary["minutes"])
    yield (
        HEAD
        + f"`python benchmarks/doctor_faults.py`, {dates}, two cores of an AMD EPYC, each diagnosis on one of them with"
    )
    yield f"`--minutes {minutes}`; a diagnosis took {summary['median_seconds'] or 0:.0f} s in the middle."
    yield ""
    yield from _figures(summary)
    if later:
        yield SECOND
        yield from _figures(summary["second"])
        since = summary["second_since"]
        if since != summary["second"]:
            yield f"| recall of the newest answers, after mending | {since['due_and_named']} of {since['due']} |"
        yield ""
        yield from _faults(later)
    yield ""
    yield "## Fault by fault"
    yield ""
    yield "*true*: how many times as fast the training is without it, by the A/B (of what is done to batches: when they"
    yield "lie ready, which is what the doctor says of a loader); *said*: by the doctor; *named as*: its cause."
    yield ""
    yield from _faults(first)
    yield from _others([*first, *later])


def _figures(counts: Mapping[str, Any]) -> Iterable[str]:
    yield "| | |"
    yield "|---|---|"
    alone = counts["faulty"] - counts["pairs"]
    yield f"| kinds of faults; trainings with one, with two | {counts['kinds']}; {alone}, {counts['pairs']} |"
    yield f"| recall: due faults that an alarm names | {counts['due_and_named']} of {counts['due']} |"
    much, seen = counts["due_above_the_interval"], counts["due_above_the_interval_and_named"]
    yield f"| of those that cost time, above twice the noise that the doctor told (an interval) | {seen} of {much} |"
    large, seen = counts["large"], counts["large_and_named"]
    yield f"| of those that make it at least {LARGE:g} times slower, whatever the noise | {seen} of {large} |"
    yield f"| size of those named within 20 % or the noise floor | {counts['sized_right']} of {counts['sized']} |"
    right, other = counts["right_alarms"], counts["other_alarms"]
    yield f"| precision: alarms of faulty trainings that name a fault put in | {right} of {right + other} |"
    if counts["other_alarms_confirmed"]:
        yield f"| alarms beside them that our own A/B confirms | {counts['other_alarms_confirmed']} |"
    silent = counts["clean"] - len(counts["clean_with_alarm"])
    if counts["clean"]:
        yield f"| trainings without a fault that raise no false alarm | {silent} of {counts['clean']} |"
    if counts["clean_with_confirmed_alarm"]:
        yield f"| of these, with an alarm that our own A/B confirms | {len(counts['clean_with_confirmed_alarm'])} |"
    if counts["disturbed"]:
        yield f"| diagnoses during which other programs had more than 5 % of the core | {counts['disturbed']} |"
    if counts["failed"]:
        yield f"| diagnoses that failed, which counts as missed | {len(counts['failed'])} |"
    if counts.get("run_again"):
        yield f"| results that a later one of another commit took the place of | {counts['run_again']} |"


def _faults(lines: Iterable[Any]) -> Iterable[str]:
    """A row for each fault of each training that has one."""
    yield "| fault | training | true | said | floor | | named as | doctor |"
    yield "|---|---|---:|---:|---:|---|---|---|"
    harms = json.loads(EFFECTS.read_text()) if EFFECTS.exists() else {}
    for line in sorted((line for line in lines if line["faults"]), key=lambda one: (len(one["faults"]), one["own"])):
        case = _case(line)
        for verdict in line["verdicts"]:
            kind = known(case, verdict["fault"]).kind
            others = [known(case, name).kind for name in line["faults"] if name != verdict["fault"]]
            kind += f" (with: {others[0]})" if others else ""
            where = ("ours, " if line["own"] else "") + line["subject"]
            true = f"{verdict['true']:.2f}" if verdict.get("true") else _harm(harms.get(verdict["fault"], {}))
            said = f"{verdict['said']:.2f}" if verdict.get("said") else ""
            floor = f"{verdict['floor']:.1%}" if verdict.get("floor") else ""
            cause = (verdict.get("cause") or "").replace("_", " ")
            yield f"| {kind} | {where} | {true} | {said} | {floor} | {_word(verdict)} | {cause} | {line['doctor']} |"


def _harm(effect: Mapping[str, Any]) -> str:
    """What a fault of learning or memory was seen to do, without it and with it."""
    if "with" in effect:
        (loss, ends), (spoilt, unlearnt) = (
            [median(of) for of in zip(*effect[kind], strict=True)] for kind in ("without", "with")
        )
        if abs(spoilt - loss) >= abs(unlearnt - ends) / 10:
            return f"loss {loss:.2f} → {spoilt:.2f}"
        return f"loss of ends {ends:.1f} → {unlearnt:.1f}"
    if "gained_mib" in effect:
        (gained, more), (weights, heavier) = effect["gained_mib"], effect["weights_mib"]
        if heavier > weights:
            return f"weights {weights:.1f} → {heavier:.1f} MiB"
        return f"{gained:+.0f} → {more:+.0f} MiB in 300 steps"
    return ""


def _others(lines: Sequence[Any]) -> Iterable[str]:
    """Alarms beside the faults."""
    others = [(line, one) for line in lines for one in line["surplus"]]
    if not others:
        return
    yield ""
    yield "## Alarms that name no fault that was put in"
    yield ""
    yield "| training | alarm | size | our own A/B |"
    yield "|---|---|---:|---|"
    for line, one in others:
        size = f"{one['size']:.2f} {one['unit'] or ''}".rstrip() if one["size"] else ""
        kinds = " and ".join(known(_case(line), name).kind for name in line["faults"])
        real = one.get("truth")
        ours = f"{real['times']:.2f} ({real['low']:.2f} to {real['high']:.2f}) times" if real else "not known"
        yield f"| {line['subject']}, {kinds or 'nothing wrong'} | {one['title']} | {size} | {ours} |"


def _case(line: Mapping[str, Any]) -> Case:
    return Case(line["subject"], tuple(line["faults"]), line["seed"], line["honest"], line["own"])


def _judged_anew(line: Mapping[str, Any]) -> dict[str, Any]:
    """By today's right answers of its faults: a result may be older."""
    case = _case(line)
    if line["failed"]:
        missed = [
            {"fault": name, "harm": known(case, name).harm, "named": False, "due": True} for name in line["faults"]
        ]
        return {**line, "verdicts": missed, "surplus": []}
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
    if "off" not in verdict:
        return "named, without a size"
    return "named, size right" if verdict["near"] else f"named, cost off by {verdict['off']:+.0%}"
