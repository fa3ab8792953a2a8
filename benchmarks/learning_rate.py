"""The best learning rate at 3M, 10M and 30M parameters, with and without mup, for AdamW and Muon.

    python benchmarks/learning_rate.py --data data/pystdlib

Every case trains from the same seed on the same batches for the same number of steps, at learning rates that are powers
of two: from the best of the case before, outwards until both neighbours of the best one are worse. The rate "between"
is the lowest point of the parabola through those three, in log₂ of the rate. What a result file holds already is not
trained again, so the program may be stopped and started as one likes; what is not finished within --minutes is left
for the next start. One thread: two of these may run beside each other.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import ganeum
from ganeum.config.schema import Data, Model, Train
from ganeum.data.batch import WindowBatch
from ganeum.data.batches import Batches, validation_windows
from ganeum.data.corpus import Corpus, open_corpus
from ganeum.hardware.machine import cpu_name
from ganeum.models.build import build
from ganeum.record import read_json, write_json
from ganeum.step import allocator, parametrization, precision
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.step.schedule import learning_rate

RESULTS = Path(__file__).resolve().parent / "results"
HEAD_DIM = 64  # width grows by heads
FIRST = {"standard": -10, "mup": -8}  # log₂ of the rate where a search begins
LEAST, MOST = -16, 2  # where it gives up


@dataclass(frozen=True)
class Case:
    """A model and a batch; ``batch`` is a multiple of --batch-size."""

    name: str
    n_layer: int
    n_embd: int
    batch: int = 1


CASES = {case.name: case for case in (Case("3M", 5, 192), Case("10M", 7, 320), Case("30M", 9, 512))}
CASES["3M, batch x 4"] = Case("3M, batch x 4", 5, 192, batch=4)


class Sweep:
    """One optimizer and parametrization over all cases; its points lie in the result file."""

    def __init__(self, given: argparse.Namespace, corpus: Corpus, points: list[dict[str, Any]]) -> None:
        self.given, self.corpus, self.points = given, corpus, points
        self.until = time.monotonic() + 60 * given.minutes

    def best(self, case: Case, optimizer: str, kind: str, first: int) -> int | None:
        """log₂ of the best rate on the grid, once both its neighbours are known; None where time ran out."""
        todo = [first, first + 1, first - 1]
        losses: dict[int, float] = {}
        while todo:
            exponent = todo.pop(0)
            if exponent not in losses:
                if (loss := self.loss(case, optimizer, kind, exponent)) is None:
                    return None
                losses[exponent] = loss
            if not todo:
                lowest = min(losses, key=lambda e: losses[e])
                todo = [e for e in (lowest - 1, lowest + 1) if e not in losses and LEAST <= e <= MOST]
        return lowest

    def loss(self, case: Case, optimizer: str, kind: str, exponent: int) -> float | None:
        """Validation loss after training; infinite where it diverged; None where there is no time left."""
        key = {"case": case.name, "optimizer": optimizer, "parametrization": kind, "log2_rate": exponent}
        for point in self.points:
            if key.items() <= point.items():
                return math.inf if point["val_loss"] is None else point["val_loss"]
        if time.monotonic() > self.until:
            return None
        began = time.perf_counter()
        loss = self.trained(case, optimizer, kind, 2.0**exponent)
        seconds = time.perf_counter() - began
        self.points.append(key | {"val_loss": loss if math.isfinite(loss) else None, "seconds": round(seconds, 1)})
        write(self.given, self.points)
        print(f"{optimizer:6} {kind:9} {case.name:14} 2^{exponent:<4} {loss:8.4f}  {seconds:6.0f} s", flush=True)
        return loss if math.isfinite(loss) else math.inf

    def trained(self, case: Case, optimizer: str, kind: str, rate: float) -> float:
        """Trains one model from the seed → nats per validation token; nan where the gradient was not finite."""
        given = self.given
        model = shape(case, given, self.corpus.vocab_size)
        train = Train(
            optimizer=optimizer,
            parametrization=kind,
            learning_rate=rate,
            batch_size=given.batch_size * case.batch,
            max_iters=given.steps,
        )
        torch.manual_seed(given.seed)
        network = build(model)
        parametrization.initialise(network, model, train)
        step = OptimizerStep(network, train, "cpu", precision=given.precision)
        batches = Batches(self.corpus.train, Data(), model.block_size, train.batch_size, given.seed)
        for n in range(given.steps):
            step.on(
                WindowBatch(*batches.batch(n)),
                at_once=given.batch_size,
                step=n,
                learning_rate=learning_rate(n, train, given.steps),
            )
            if n % 20 == 0 and int(step.first_bad_step) >= 0:
                return math.nan
        assert self.corpus.val is not None
        x, y = validation_windows(self.corpus.val, model.block_size, 16_384)
        network.eval()
        nats = [step.token_nats(part).sum().item() for part in WindowBatch(x, y).micro_batches(32)]
        return sum(nats) / y.numel()


def shape(case: Case, given: argparse.Namespace, vocab_size: int) -> Model:
    return Model(
        style=given.style,
        n_layer=case.n_layer,
        n_head=case.n_embd // HEAD_DIM,
        n_embd=case.n_embd,
        block_size=given.block_size,
        vocab_size=vocab_size,
    )


def settings(given: argparse.Namespace) -> dict[str, Any]:
    """What must be the same for points to be compared."""
    names = ("data", "steps", "batch_size", "block_size", "precision", "style", "seed")
    return {name: getattr(given, name) if name != "data" else given.data.name for name in names}


def write(given: argparse.Namespace, points: list[dict[str, Any]]) -> None:
    machine = {"cpu": cpu_name(), "python": platform.python_version(), "torch": torch.__version__}
    versions = {"ganeum": ganeum.__version__, "date": time.strftime("%Y-%m-%d")}
    write_json(given.out, {"settings": settings(given), **machine, **versions, "points": points})


def read(given: argparse.Namespace) -> list[dict[str, Any]]:
    """The points there are; a file of other settings is refused."""
    if not given.out.exists():
        return []
    content = read_json(given.out)
    if content["settings"] != settings(given):
        raise SystemExit(f"{given.out} holds points of {content['settings']}, not of {settings(given)}: another --out")
    points: list[dict[str, Any]] = content["points"]
    return points


def between(losses: dict[int, float]) -> float | None:
    """log₂ of the rate at the lowest point of the parabola through the best one and its neighbours."""
    best = min(losses, key=lambda e: losses[e])
    low, at, high = (losses.get(e, math.inf) for e in (best - 1, best, best + 1))
    if not math.isfinite(low + high):
        return None
    return best + 0.5 * (low - high) / (low - 2 * at + high)


def table(points: list[dict[str, Any]]) -> str:
    """Markdown: the best rates of each case, and their ratios to the first case's of the same sweep."""
    lines = ["| optimizer | parametrization | model | best on the grid | between | ratio to 3M | val_loss |"]
    lines.append("|---|---|---|--:|--:|--:|--:|")
    first: dict[tuple[str, str], float] = {}
    for optimizer, kind in dict.fromkeys((p["optimizer"], p["parametrization"]) for p in points):
        for name in CASES:
            wanted = {"case": name, "optimizer": optimizer, "parametrization": kind}
            there = [p for p in points if wanted.items() <= p.items()]
            losses = {p["log2_rate"]: math.inf if p["val_loss"] is None else p["val_loss"] for p in there}
            if not losses or (exact := between(losses)) is None:
                continue
            base = first.setdefault((optimizer, kind), exact)
            best = min(losses, key=lambda e: losses[e])
            lines.append(
                f"| {optimizer} | {kind} | {name} | 2^{best} = {2.0**best:.3g} | {2**exact:.3g} "
                f"| {2 ** (exact - base):.2f} | {losses[best]:.4f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a prepared directory")
    parser.add_argument("--sweeps", nargs="+", default=["adamw-mup", "muon-mup", "adamw-standard", "muon-standard"])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--block-size", type=int, default=128)
    parser.add_argument("--style", default="gpt2", choices=["gpt2", "modern"])
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no point is begun after so many")
    parser.add_argument("--out", type=Path, default=RESULTS / "learning-rate-cpu.json")
    parser.add_argument("--table", action="store_true", help="only print what the result file holds")
    given = parser.parse_args()
    given.precision = precision.choose(given.precision, "cpu")[0]
    torch.set_num_threads(1)
    allocator.keep_freed_memory()
    points = read(given)
    if not given.table:
        sweep = Sweep(given, open_corpus(str(given.data), given.block_size), points)
        for name in given.sweeps:
            optimizer, kind = name.split("-")
            best: int | None = FIRST[kind]
            for case in (CASES[name] for name in given.cases):
                best = sweep.best(case, optimizer, kind, best if best is not None else FIRST[kind])
    print(table(points))


if __name__ == "__main__":
    main()
