"""Does a fault do what it is said to do? Looked at by us alone, before the doctor is asked.

    cd benchmarks; python -m doctor_faults.effect [REGEX]

Time: an A/B with and without it. Memory: what the process gains over 300 steps, and the bytes of weights, with and
without. Learning: the loss of held-out rows, batched and computed as they should be, after 400 steps with and without,
for three seeds; and the loss of the ends of text alone.
"""

from __future__ import annotations

import gc
import json
import math
import random
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from doctor_faults.catalogue import LATER, parts_of
from doctor_faults.fault import FAULTS
from doctor_faults.race import Runner, raced
from doctor_faults.subjects import (
    END,
    LONGEST,
    Batch,
    Parts,
    assembled,
    collated,
    like_lengths,
    own_loss,
    plain_loss,
    sentences,
)

STEPS, SEEDS, HELD_OUT = 400, (0, 1, 2), 160
FILE = Path(__file__).resolve().parents[1] / "results" / "doctor-faults-effects.json"


def slower(name: str, seconds: float = 12.0) -> dict[str, float]:
    """How many times as fast the training is without it."""
    one = FAULTS[name]
    asked: dict[str, Any] = {"subject": one.subjects[0], "seed": 0, "honest": {}, "ready": False, "amended": None}

    def start(side: int) -> Runner:
        if side:
            return Runner(asked | {"names": [], "without": [name]}, {}, None)
        return Runner(asked | {"names": [name], "without": []}, one.environment, one.beside)

    return asdict(raced(start, seconds))


def taken(built: dict[str, Any], steps: int) -> None:
    """So many steps, epoch after epoch."""
    left = steps
    while left:
        for batch in built["batches"]:
            built["step"](batch)
            left -= 1
            if not left:
                break


def resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def grown(name: str) -> dict[str, list[float]]:
    """MiB gained over 300 steps, and MiB of weights; without the fault and with it."""
    gained, weights = [], []
    for names in ((), (name,)):
        built = assembled(parts_of(FAULTS[name].subjects[0], names, without=[name] if not names else ()))
        taken(built, 50)
        gc.collect()
        before = resident()
        taken(built, 300)
        gained.append(resident() - before)
        weights.append(sum(one.numel() * one.element_size() for one in built["model"].parameters()) / 2**20)
    return {"gained_mib": gained, "weights_mib": weights}


def held_out(subject: str, seed: int) -> Iterator[Batch]:
    """Honest batches of texts that follow the same table and were never trained on."""
    parts, longest = Parts(subject, seed), LONGEST[subject]
    if subject in ("plain", "windows"):
        texts = sentences(seed, 900 + HELD_OUT * 2, 20, 60)[900:]
        stream = [token for text in texts for token in (*text, END)]
        cut = [stream[start : start + longest] for start in range(0, len(stream) - longest + 1, longest)]
        rows = [{"input_ids": row, "labels": row} for row in cut]
    else:
        texts = sentences(seed, 640 + HELD_OUT, 12, longest - 1)[640:]
        short = subject == "pairs"
        rows = [
            {"input_ids": [*text, END], "labels": [*(text[: len(text) // 2] if short else text), END]} for text in texts
        ]
    return (collated(parts, batch) for batch in like_lengths(rows, 8, random.Random(seed)))


@torch.no_grad()
def losses(model: Any, subject: str, seed: int) -> tuple[float, float]:
    """Of held-out rows: of all tokens, of the ends alone."""
    model.eval()
    loss_of = plain_loss if subject == "plain" else own_loss
    found: list[Sequence[float]] = []
    for batch in held_out(subject, seed):
        ends = batch | {"labels": batch["labels"].masked_fill(batch["labels"] != END, -100)}
        found.append((float(loss_of(model, batch)), float(loss_of(model, ends))))
    whole, ends_only = zip(*found, strict=True)
    real = [value for value in ends_only if math.isfinite(value)]
    return sum(whole) / len(whole), sum(real) / max(len(real), 1)


def learnt(name: str) -> dict[str, list[list[float]]]:
    """Losses after training without the fault, and with it: of each seed, of all tokens and of ends."""
    answers: dict[str, list[list[float]]] = {"without": [], "with": []}
    subject = FAULTS[name].subjects[0]
    for seed in SEEDS:
        for kind, names in (("without", ()), ("with", (name,))):
            built = assembled(parts_of(subject, names, seed, without=[name] if not names else ()))
            taken(built, STEPS)
            answers[kind].append(list(losses(built["model"], subject, seed)))
    return answers


def main() -> None:
    """Of the later kinds, or of those asked for."""
    wanted = [name for name in FAULTS if (re.search(sys.argv[1], name) if len(sys.argv) > 1 else name in LATER)]
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    torch.set_num_threads(1)
    for name in wanted:
        look = {"speed": slower, "memory": grown, "learning": learnt}[FAULTS[name].harm]
        known[name] = answer = look(name)
        if "times" in answer:
            text = f"{answer['times']:.2f} times ({answer['low']:.2f} to {answer['high']:.2f})"
        elif "without" in answer:
            middle = {kind: [median(of) for of in zip(*answer[kind], strict=True)] for kind in ("without", "with")}
            text = ", ".join(f"{kind}: loss {whole:.3f}, of ends {ends:.3f}" for kind, (whole, ends) in middle.items())
        else:
            text = str({key: [round(value, 1) for value in values] for key, values in answer.items()})
        print(f"{name}: {text}", flush=True)
        FILE.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
