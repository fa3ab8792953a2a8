"""Trainings of somebody, small enough to step a thousand times a second; each function builds one."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganeum.doctor import Training


@dataclass
class Rows:
    """Eight batches of ids and labels; ``slow``: seconds that each is waited for."""

    slow: float = 0.0

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        draw = torch.Generator().manual_seed(1)
        for _ in range(8):
            time.sleep(self.slow)
            ids = torch.randint(0, 50, (4, 16), generator=draw)
            labels = ids.clone()
            labels[:, :4] = -100
            yield {"input_ids": ids, "labels": labels}


def plain() -> Training:
    """48 tokens of each batch carry loss."""
    return _training(Rows())


def waiting() -> Training:
    """Batches are waited for much longer than a step takes."""
    return _training(Rows(slow=0.05))


def once() -> Training:
    """Batches that end and cannot be iterated anew."""
    return _training(iter(list(Rows())[:2]))


def full() -> Training:
    """Its steps find no memory."""
    return _training(Rows(), before=_no_memory)


def ended() -> Training:
    """The system ends it in its first step."""
    return _training(Rows(), before=lambda: os.kill(os.getpid(), 9))


def endless() -> Training:
    """Its first step never ends."""
    return _training(Rows(), before=lambda: time.sleep(1e6))


def accompanied() -> Training:
    """It starts a program that writes down, all the time, that it is alive."""
    code = "import sys, time\nwhile True: open(sys.argv[1], 'w').write(str(time.monotonic())); time.sleep(0.005)"
    subprocess.Popen([sys.executable, "-c", code, os.environ["ALIVE"]])
    return _training(Rows())


def detached() -> Training:
    """It starts a program in a session of its own, one that its parent leaves, and holds shared memory."""
    notes = [str(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)]
    notes.append(subprocess.check_output(["sh", "-c", "setsid sleep 1000 > /dev/null & echo $!"], text=True).strip())
    held.append(SharedMemory(create=True, size=64))
    Path(os.environ["NOTES"]).write_text("\n".join([*notes, held[0].name]))
    return _training(Rows())


held: list[SharedMemory] = []


def parsed() -> Training:
    """It reads the command line, as scripts do."""
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=1)
    assert options.parse_args().rows == 1
    return _training(Rows())


def leaving() -> Training:
    """Its first step ends the program."""
    return _training(Rows(), before=lambda: sys.exit(3))


def empty() -> Training:
    """No batch at all, which is seen in the first step."""
    return _training(iter([]))


def in_parts() -> Training:
    """Its step calls parts of the model, as of a GAN, and never the model itself."""
    plain = _training(Rows())
    parts = nn.ModuleList(plain.model.children())

    def step(batch: dict[str, Tensor]) -> None:
        parts[1](parts[0](batch["input_ids"])).logsumexp(-1).mean().backward()
        plain.optimizer.step()  # type: ignore[union-attr]
        plain.optimizer.zero_grad()  # type: ignore[union-attr]

    return Training(parts, Rows(), step, plain.optimizer)


def unlearning() -> Training:
    """Nothing of its model is trained."""
    return Training(nn.ReLU(), Rows(), lambda batch: None)


def nothing() -> Any:
    """No training at all."""
    return 7


def _no_memory() -> None:
    raise MemoryError("1 GiB")


def _training(batches: Any, before: Any = lambda: None) -> Training:
    model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 50))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(batch: dict[str, Tensor]) -> Tensor:
        before()
        logits, labels = model(batch["input_ids"])[:, :-1], batch.pop("labels")[:, 1:]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return Training(model, batches, step, optimizer, fresh=True)
