"""The queue under fire: whatever can happen to managers, runs, the disk, the list, the machine and its clock.

    python benchmarks/queue_faults.py --rounds 500           # stand-ins for trainings: about three seconds a round
    python benchmarks/queue_faults.py --rounds 500 --real    # `ganeum train` itself: about six
    python benchmarks/queue_faults.py --write                # the tables of docs/queue.md and docs/log.md

Two managers work on one list. In each round an accident is drawn from the seed (queue_accidents.py); then the world is
put right (managers started again, room on the disk), and within 40 seconds every entry must be there, every run
finished or on its way, no process left that belongs to nothing. Never may two processes have trained one run at once:
each training holds a lock that a second one would find taken (queue_trainer.py), and who trains what is looked at from
outside as well (queue_world.py). At the end all runs must finish; real ones with the same weights, bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from queue_accidents import ACCIDENTS, KINDS
from queue_trainer import STEPS
from queue_world import WITHIN_S, Broken, World

import ganeum
from ganeum.errors import QueueError
from ganeum.hardware.machine import cpu_name
from ganeum.queue.entry import ENDED
from ganeum.record import RunDirectory

ROOT = Path(__file__).parents[1]
RESULTS = "benchmarks/results/queue_faults_*.json"
MOST_BROKEN = 5  # then it is enough


def campaign(rounds: int, seed: int, real: bool, steps: int, directory: Path, minutes: float) -> dict[str, Any]:
    """`rounds` accidents, or as many as there are in `minutes` → the summary."""
    code, begun = commit(), time.monotonic()
    world = World(directory, real, steps)
    happened, moments, broken = Counter[str](), Counter[str](), list[str]()
    try:
        world.add(4)
        world.put_right()
        for number in range(rounds):
            if time.monotonic() - begun > 60 * minutes or len(broken) >= MOST_BROKEN:
                break
            draw = random.Random(seed * 1_000_003 + number)
            open_ = sum(entry.state not in ENDED for entry in world.entries())
            if open_ < 4:
                world.add(4 - open_)
            if draw.random() < 0.8:
                world.wait_for_a_training()
            time.sleep(draw.uniform(0.0, 3.0 if real else 1.0))
            [accident] = draw.choices(list(ACCIDENTS), [weight for _, weight in ACCIDENTS.values()])
            happened[accident] += 1
            try:
                ACCIDENTS[accident][0](world, draw)
                if moment := world.moment():
                    moments[moment] += 1
                time.sleep(draw.choice([0.0, 0.0, draw.uniform(0.0, 1.0)]))
                world.put_right()
            except (Broken, QueueError, sqlite3.Error) as error:
                broken.append(f"round {number} (seed {seed}), {accident}: {error}")
                print(broken[-1], flush=True)
            if (number + 1) % 25 == 0:
                print(f"{number + 1} rounds, {len(broken)} broken", flush=True)
        broken += [] if broken else finish(world, steps if real else STEPS)
        sums = weights(world) if real and not broken else set()
        if len(sums) > 1:
            broken.append(f"{len(sums)} different weights")
        return {
            "rounds": sum(happened.values()),
            "seed": seed,
            "trainings": "ganeum train" if real else "stand-ins",
            "runs": len(world.names),
            "finished": sum(entry.state == "finished" for entry in world.entries()),
            "trainings_started": len(list((world.faults / "starts").iterdir())),
            "queued_again_by_hand": dict(world.by_hand),
            "different_weights": len(sums) if real else None,
            "minutes": round((time.monotonic() - begun) / 60, 1),
            "accidents": {name: happened[name] for name in ACCIDENTS if happened[name]},
            "moments": dict(sorted(moments.items())),
            "broken": broken,
            "ganeum": ganeum.__version__,
            "commit": code,
            "python": platform.python_version(),
            "cpu": cpu_name(),
            "date": time.strftime("%Y-%m-%d"),
        }
    finally:
        world.end()


def finish(world: World, steps: int) -> list[str]:
    """Wait until all is done → what is not as it should be then."""
    deadline = time.monotonic() + 10 * WITHIN_S
    try:
        while not world.done():
            if time.monotonic() > deadline:
                return [f"the rest did not finish: {dict(Counter(entry.state for entry in world.entries()))}"]
            world.put_right()
            time.sleep(0.5)
        world.put_right()
    except (Broken, QueueError, sqlite3.Error) as error:
        return [f"at the end: {error}"]
    reached = {name: RunDirectory(world.results / name).status() for name in sorted(world.names)}
    return [
        f"{name} is finished at {status.step if status else 'no'} of {steps} steps"
        for name, status in reached.items()
        if status is None or status.state != "finished" or status.step != steps
    ]


def weights(world: World) -> set[str]:
    """The sums of the weights that the finished runs ended with."""
    latest = [sorted((world.results / name / "checkpoints").glob("step-*"))[-1] for name in sorted(world.names)]
    return {hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest() for path in latest}


def commit() -> str | None:
    """Of the code that was under fire; None where it was no commit."""
    git = ["git", "-C", str(ROOT)]
    if subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "src"], capture_output=True).returncode:
        return None
    return subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True).stdout.strip()


# The tables of the documentation


def results() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(ROOT.glob(RESULTS))]


def survived(told: Sequence[dict[str, Any]]) -> str:
    """For users: how often each kind of accident happened, and what came of it."""
    rows = [
        (kind, [_times(told, "accidents", list(accidents), real) for real in (False, True)])
        for kind, accidents in KINDS.items()
    ]
    rows.append(("**all**", [sum(one["rounds"] for one in told if _real(one) == real) for real in (False, True)]))
    rows.append(
        (
            "**runs lost, or trained twice at once**",
            [sum(len(one["broken"]) for one in told if _real(one) == real) for real in (False, True)],
        )
    )
    return _table(rows)


def in_full(told: Sequence[dict[str, Any]]) -> str:
    """For the log: each campaign, each accident, and the moments that accidents were aimed at."""
    lines = [
        "| trainings | seed | commit | rounds | runs, finished | trainings started | queued again by hand | broken "
        "| weights |"
    ]
    lines.append("|---|--:|---|--:|--:|--:|--:|--:|---|")
    for one in told:
        same = {None: "", 1: "the same of all, bit for bit"}.get(one["different_weights"], "different")
        cells = [
            one["trainings"],
            one["seed"],
            one["commit"] or "",
            f"{one['rounds']:,}",
            f"{one['runs']:,}, {one['finished']:,}",
        ]
        cells += [f"{one['trainings_started']:,}", sum(one["queued_again_by_hand"].values()), len(one["broken"]), same]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    rows = []
    for what, names in (
        ("accidents", list(ACCIDENTS)),
        ("moments", sorted({name for one in told for name in one["moments"]})),
    ):
        rows += [(name, [_times(told, what, [name], real) for real in (False, True)]) for name in names]
    return "\n".join(lines) + "\n\n" + _table(rows)


def _real(one: dict[str, Any]) -> bool:
    return bool(one["trainings"] != "stand-ins")


def _times(told: Sequence[dict[str, Any]], what: str, names: Sequence[str], real: bool) -> int:
    return sum(one[what].get(name, 0) for one in told for name in names if _real(one) == real)


def _table(rows: Sequence[tuple[str, Sequence[int]]]) -> str:
    head = "| | stand-ins for trainings | `ganeum train` |\n|---|--:|--:|\n"
    return head + "\n".join(
        f"| {name} | " + " | ".join(f"{number:,}" for number in numbers) + " |" for name, numbers in rows
    )


PAGES: dict[str, Callable[[Sequence[dict[str, Any]]], str]] = {"docs/queue.md": survived, "docs/log.md": in_full}
MARK, END = "<!-- from benchmarks/results/queue_faults_*.json -->", "<!-- end of queue_faults -->"


def page(path: str, told: Sequence[dict[str, Any]]) -> str:
    """That page with its table as the results have it."""
    before, rest = (ROOT / path).read_text(encoding="utf-8").split(MARK)
    return f"{before}{MARK}\n\n{PAGES[path](told)}\n\n{END}{rest.split(END, 1)[1]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=600.0, help="no further round after so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--real", action="store_true", help="train with `ganeum train`")
    parser.add_argument("--steps", type=int, default=400, help="of a real training")
    parser.add_argument("--keep", type=Path, help="a directory that does not exist: everything stays there")
    parser.add_argument("-o", type=Path, help="write the summary here, as JSON")
    parser.add_argument("--write", action="store_true", help="only write the tables of the documentation")
    options = parser.parse_args()
    if options.write:
        for path in PAGES:
            (ROOT / path).write_text(page(path, results()), encoding="utf-8")
        return 0
    for number in (signal.SIGTERM, signal.SIGINT):  # nothing of its world outlives it
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    directory = options.keep or Path(tempfile.mkdtemp(prefix="queue_faults_"))
    directory.mkdir(exist_ok=options.keep is None)
    told = campaign(options.rounds, options.seed, options.real, options.steps, directory, options.minutes)
    text = json.dumps(told, indent=2)
    print(text)
    if options.o:
        options.o.write_text(text + "\n")
    if options.keep is None and not told["broken"]:
        shutil.rmtree(directory)
    return 1 if told["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
