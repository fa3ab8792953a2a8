"""The doctor's faults campaign: trainings with faults put in from outside, and what `ganeum doctor run` says of them.

    python benchmarks/doctor_faults.py --workers 2            # hours on two cores; goes on where it was stopped
    python benchmarks/doctor_faults.py --write                # the table of docs/doctor_accuracy.md, from what there is

Each case is a process of the doctor's on a core of its own. A fault that costs time is then taken away by us, and
both trainings take turns ten times as long as the doctor compared them: that ratio is the truth. A fault is due when
the truth is above twice the noise floor that the doctor itself saw. Recall: due faults that an alarm names. Size: the
time that the alarm says it costs, within 20 % of the truth or within the noise floor. Precision: alarms that name a
fault that is there. Forty trainings without a fault must raise none.

The faults are in ``doctor_faults/``; they were written by someone who had not read the doctor's measuring code.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any

from doctor_faults.amends import AMENDS, OWN_AMENDS
from doctor_faults.cases import Case, all_cases
from doctor_faults.diagnose import diagnosed
from doctor_faults.fault import FAULTS
from doctor_faults.own_race import raced_runs
from doctor_faults.race import Runner, raced
from doctor_faults.table import write
from doctor_faults.verdict import judged, known, surplus, times

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "doctor-faults.jsonl"
LONGER = 10  # times as long as the doctor's own contest
SHORTEST_S, LONGEST_S = 15.0, 60.0  # of a race
OWN_LONGER = 2.0  # times the minutes, for runs of ours: what they do beside their steps is measured, too


def truth(case: Case, name: str, report: dict[str, Any], work: Path, core: int) -> dict[str, float]:
    """How many times as fast the training is without that fault, by our own A/B; of a loader's fault, when batches lie
    ready, which is what the doctor says of it."""
    trials = [trial for trial in report["facts"].get("trials", []) if trial.get("cause") in known(case, name).causes]
    contests = [trial.get(which) or {} for trial in trials for which in ("alone", "upon")]
    spent = max((contest.get("seconds") or 0.0 for contest in contests), default=0.0)
    seconds = min(max(LONGER * spent, SHORTEST_S), LONGEST_S)
    if case.own:
        return asdict(raced_runs(case, None, work, core, seconds))
    without = {"names": [other for other in case.faults if other != name], "without": [name]}
    return race(case, without | {"ready": "loader" in known(case, name).causes}, core, seconds)


def confirmed(case: Case, cause: str, floor: float, work: Path, core: int) -> dict[str, Any]:
    """Of an alarm that names no fault: the same by our own A/B, where we know what to change; right where the whole
    interval is above the floor."""
    if case.own and cause in OWN_AMENDS:
        real = asdict(raced_runs(case, OWN_AMENDS[cause], work, core, SHORTEST_S))
    elif not case.own and cause in AMENDS:
        real = race(case, {"amended": cause, "ready": cause == "loader"}, core, SHORTEST_S)
    else:
        return {"confirmed": False}
    return {"confirmed": math.log(real["low"]) > floor, "truth": real}


def race(case: Case, change: dict[str, Any], core: int, seconds: float) -> dict[str, float]:
    """A training of the case beside the same with a change."""
    faulty = {"subject": case.subject, "seed": case.seed, "honest": case.honest, "names": list(case.faults)}
    faulty |= {"without": [], "ready": False, "amended": None}
    sides = (faulty, faulty | change)

    def start(side: int) -> Runner:
        asked = sides[side]
        surroundings = {key: value for one in asked["names"] for key, value in FAULTS[one].environment.items()}
        beside = next((FAULTS[one].beside for one in asked["names"] if FAULTS[one].beside), None)
        return Runner(asked, surroundings, beside)

    os.sched_setaffinity(0, {core})  # of this thread, and of what it starts
    return asdict(raced(start, seconds))


def looked_at(case: Case, minutes: float, work: Path, core: int) -> dict[str, Any]:
    """A line of the results: what the doctor said of a case, what is so, and the verdicts."""
    minutes *= OWN_LONGER if case.own else 1
    answer = diagnosed(case, minutes, work, core)
    report = answer["report"]
    line: dict[str, Any] = {"case": case.name, **asdict(case), "minutes": minutes, "seconds": answer["seconds"]}
    line |= {"doctor": commit(), "others": answer["others"], "failed": answer["failed"], "verdicts": [], "surplus": []}
    if report is None:
        return line
    line["truths"] = {
        name: truth(case, name, report, work, core) for name in case.faults if known(case, name).harm == "speed"
    }
    line["verdicts"] = [judged(case, name, report, line["truths"].get(name)) for name in case.faults]
    keys = ("cause", "severity", "title", "size", "interval", "unit")
    line["findings"] = [{key: one.get(key) for key in keys} for one in report["findings"]]
    floor = report["facts"]["floor"] or 0.01
    line["surplus"] = [
        {key: one.get(key) for key in keys} | confirmed(case, one["cause"], floor, work, core)
        for one in surplus(case, report, answer["others"])
    ]
    facts = report["facts"]
    line["facts"] = {
        key: facts.get(key) for key in ("floor", "noise", "tokens_per_second", "step_s", "phases", "trials")
    }
    return line


def commit() -> str:
    """Of the doctor that answers."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False).stdout.strip()


def told(line: dict[str, Any]) -> str:
    """A line for the terminal."""
    if line["failed"]:
        return f"{line['case']}: FAILED {line['failed'].strip().splitlines()[-1][:120]}"
    parts = [f"{line['case']}: {line['seconds']:.0f} s, floor {line['facts']['floor'] or 0:.1%}"]
    for one in line["verdicts"]:
        size = f"{one['said']:.2f}" if one.get("said") else "-"
        real = f" of {one['true']:.2f}" if one.get("true") else ""
        right = "named" if one["named"] else "MISSED" if one["due"] else "below the floor"
        near = "" if one.get("near") is None or not one["due"] else " near" if one["near"] else " OFF"
        parts.append(f"{one['fault']} {right} {size}{real}{near}")
    parts += [f"others had {line['others']:.0%} of its core"] if line["others"] > 0.1 else []
    for one in line["surplus"]:
        real = f" of {one['truth']['times']:.2f}" if "truth" in one else ""
        parts.append(f"{'true' if one['confirmed'] else 'SURPLUS'} {one['cause']} {times(one) or 0:.2f}{real}")
    return "; ".join(parts)


def main() -> None:
    """The cases that have no result yet, on as many cores as asked; with --write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.6, help="that each diagnosis may take (default: 0.6)")
    parser.add_argument("--workers", type=int, default=2, help="diagnoses at a time, a core each")
    parser.add_argument("--only", default="", metavar="REGEX", help="only cases whose name has this")
    parser.add_argument("--every-subject", action="store_true", help="each fault on every training it can be done to")
    parser.add_argument("--again", action="store_true", help="also cases that have a result")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--work", type=Path, default=Path("/tmp") / f"doctor-faults-{os.getuid()}", metavar="DIRECTORY")
    parser.add_argument("--list", action="store_true", help="only name the cases")
    parser.add_argument("--write", action="store_true", help="write the table from the results, and run nothing")
    asked = parser.parse_args()
    lines = [json.loads(line) for line in asked.results.read_text().splitlines()] if asked.results.exists() else []
    if asked.write:
        write(lines)
        return
    there = set() if asked.again else {line["case"] for line in lines if not line["failed"]}
    left = deque(
        case for case in all_cases(asked.every_subject) if re.search(asked.only, case.name) and case.name not in there
    )
    if asked.list:
        print("\n".join(case.name for case in left))
        return
    cores = sorted(os.sched_getaffinity(0))[-asked.workers :]
    entering = threading.Lock()

    def work(core: int) -> None:
        while left:
            case = left.popleft()
            started = time.strftime("%F %T")
            line = looked_at(case, asked.minutes, asked.work, core) | {"at": started}
            with entering, asked.results.open("a") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                print(f"{time.strftime('%T')} {len(left)} left; {told(line)}", flush=True)

    threads = [threading.Thread(target=work, args=(core,), daemon=True) for core in cores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
