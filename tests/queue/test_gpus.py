"""GPUs through a driver of our own: cards that differ, that others fill, that are lost; and whole runs on two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ganeum.config import load
from ganeum.queue import freeze
from ganeum.queue.entry import Entry
from ganeum.queue.store import Store
from ganeum.record import read_metrics

pytestmark = pytest.mark.slow

FIT = """
import json
from pathlib import Path
from ganeum.queue.devices import look
from ganeum.queue.needs import Held, Wish
from ganeum.queue.places import fit
def asks(gib, device="cuda"):
    return Wish(device, lambda _, free: gib if gib <= free else float("inf"))
def told(gib, *running, device="cuda", per_gpu=1):
    answer = fit(asks(gib, device), look(per_gpu), running)
    said = getattr(answer, "device", None) or answer.why
    print(json.dumps([type(answer).__name__, said, getattr(answer, "keeps", 0)]))
"""
TRAIN = """\
#!/bin/sh
# Trains for real, on the CPU, whatever card it was given; notes which that was, and how many train at once.
mkdir at_once/$$
echo "$(basename $(dirname $(dirname $1))) $CUDA_VISIBLE_DEVICES $(ls at_once | wc -l)" >> cards
{python} -m ganeum train "$@" device=cpu
status=$?
rmdir at_once/$$
exit $status
"""
MANAGER = """
import sys
from ganeum.queue import manager
from ganeum.queue.store import Store
manager.run(Store.default(), until_empty=True, train=[sys.argv[1]], poll_s=0.05)
"""
CONFIG = """\
model: {n_layer: 1, n_head: 2, n_embd: 16, block_size: 16}
data: {directory: tokens}
train: {batch_size: 2, max_iters: 4, compile: false, precision: fp32}
log: {tensorboard: false, interval: 1}
device: cuda
"""


def asked(driver: Path, script: str, **settings: str) -> list[list[Any]]:
    """What a process under the driver prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CUDA_")}
    environment |= {"LD_LIBRARY_PATH": str(driver)} | settings
    done = subprocess.run([sys.executable, "-c", FIT + script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_cards_of_different_size(driver: Path) -> None:
    """The small one first, the large one for what needs it; `cuda:0` is the first whatever there is of it."""
    script = "told(3.0); told(15.0); told(3.0, device='cuda:1'); told(30.0)"
    small, large, by_number, never = asked(driver, script, STUB_TOTAL="10,24", STUB_FREE="10,24")
    assert (["Placed", "GPU-aaaa", 0], ["Placed", "GPU-bbbb", 0]) == (small, large)
    assert ["Placed", "GPU-bbbb", 0] == by_number
    assert "Never" == never[0]


def test_what_another_program_takes_meanwhile_is_waited_for(driver: Path, tmp_path: Path) -> None:
    """It grows while a run waits, and ends: each look sees what is free then; nothing is kept because of it."""
    state = tmp_path / "state"
    looks = "".join(
        f"Path({str(state)!r}).write_text('STUB_FREE={free}\\n'); told(6.0, device='cuda:0'); "
        for free in ("5,10", "1,10", "9,10")
    )
    before, more, after = asked(driver, looks, STUB_FILE=str(state))
    assert ["Wait", "GPU 0 has too little free: 5.0 of 10.0 GiB", None] == before
    assert ["Wait", "GPU 0 has too little free: 1.0 of 10.0 GiB", None] == more
    assert ["Placed", "GPU-aaaa", 0] == after


def test_a_card_that_is_lost_while_a_run_is_on_it(driver: Path) -> None:
    """The others are still given, and what asks for more cards than are left is told why."""
    script = "told(3.0, Held('GPU-aaaa', 4.0)); told(3.0, Held('GPU-aaaa', 4.0), device='cuda:1')"
    other, missing = asked(driver, script, STUB_LOST="0")
    assert ["Placed", "GPU-bbbb", 0] == other
    assert "Never" == missing[0]
    assert missing[1].endswith("; GPU 0 cannot be asked: GPU is lost")


def test_numbers_of_cards_that_differ_are_said_to_be_unclear(driver: Path) -> None:
    """CUDA counts the fastest first unless it is told to count as nvidia-smi does; UUIDs say what they mean."""
    script = "print(json.dumps([look().trouble]))"
    unclear = [
        "CUDA_VISIBLE_DEVICES counts cards that differ: here as nvidia-smi does, by CUDA the fastest first; "
        "CUDA_DEVICE_ORDER=PCI_BUS_ID makes it the same, and UUIDs are always clear"
    ]
    mixed = {"STUB_TOTAL": "10,24"}
    assert [unclear] == asked(driver, script, CUDA_VISIBLE_DEVICES="1", **mixed)
    assert [[""]] == asked(driver, script, CUDA_VISIBLE_DEVICES="1", CUDA_DEVICE_ORDER="PCI_BUS_ID", **mixed)
    assert [[""]] == asked(driver, script, CUDA_VISIBLE_DEVICES="GPU-b", **mixed)
    assert [[""]] == asked(driver, script, CUDA_VISIBLE_DEVICES="1")


def test_three_runs_on_two_gpus(driver: Path, tmp_path: Path, store: Store) -> None:
    """Two queue processes at once, real trainings: each sees one card by its UUID, two train at a time on different
    cards, the third follows on the first that is free, and all of them are trained to their end."""
    Path("text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 100)
    prepare = ["prepare", "text.txt", "--tokenizer", "bytes", "--out", "tokens"]
    subprocess.run([sys.executable, "-m", "ganeum", *prepare], check=True, capture_output=True)
    Path("tiny.yaml").write_text(CONFIG)
    names = ["one", "two", "three"]
    freeze.add(store, [(load("tiny.yaml", [f"name={name}"]), Entry(name)) for name in names])
    Path("at_once").mkdir()
    train = Path("train.sh")
    train.write_text(TRAIN.format(python=sys.executable))
    train.chmod(0o755)
    environment = os.environ | {"LD_LIBRARY_PATH": str(driver), "STUB_FREE": "9,9", "OMP_NUM_THREADS": "1"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    command = [sys.executable, "-c", MANAGER, str(train.resolve())]
    queues = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [0, 0] == [queue.wait(300) for queue in queues]
    assert ["finished"] * 3 == [entry.state for entry in store.all()], [entry.error_tail for entry in store.all()]
    given = [line.split() for line in Path("cards").read_text().splitlines()]
    assert sorted(names) == sorted(name for name, _, _ in given)
    assert {"GPU-aaaa", "GPU-bbbb"} == {card for _, card, _ in given[:2]}
    assert {entry.name: entry.device for entry in store.all()} == {name: card for name, card, _ in given}
    assert max(int(at_once) for _, _, at_once in given) <= 2
    assert all(
        [4] == [line["step"] for line in read_metrics(store.run(entry).metrics_path)][-1:] for entry in store.all()
    )
