"""The watch over the GPU, on a stub of NVML: what it writes, and that no driver can disturb a training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_corpus import config, go, metrics

from ganeum import train
from ganeum.train.watch import LINES, Watch, addresses, gpu_watch

pytestmark = pytest.mark.slow

TRAIN = """
import sys
from ganeum import train
from ganeum.train import watch
watch.HANG_S = 0.3
train(*sys.argv[1:], callbacks=[watch.Watch(["GPU-aaaa"], 0.01, print)])
"""


def watched(yaml: Path, driver: Path, *overrides: str, **settings: str) -> tuple[list[dict[str, Any]], str]:
    """Trains on the CPU beside a stub of a busy GPU → the lines of system.jsonl, and what was shown."""
    environment = os.environ | {"LD_LIBRARY_PATH": str(driver)} | settings
    command = [sys.executable, "-c", TRAIN, str(yaml), "sample.interval=0", *overrides]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    file = Path("results/tiny/logs/system.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()], done.stdout


def test_what_the_gpu_did_lies_beside_what_was_learnt(yaml: Path, driver: Path) -> None:
    """Every look is a line with its time and step; the summary says what held the clocks down; a resumed run goes on
    in the same file, without the line that its death tore."""
    lines, shown = watched(yaml, driver, "max_iters=100")
    assert len(lines) > 10
    assert {"time", "elapsed_s", "step", "read_ms", "sm_clock_mhz", "power_w", "throttle_reasons"} <= lines[0].keys()
    assert lines == sorted(lines, key=lambda line: (line["elapsed_s"], line["step"]))
    assert 0 < lines[-1]["step"] <= 100
    assert "at work its clocks were held down by its temperature; SM clock 1,200 MHz, 2,100 at most" in shown
    summary = json.loads(Path("results/tiny/summary.json").read_text())
    assert {"sw_thermal_slowdown"} == set(summary["gpu"]["reasons"])

    with Path("results/tiny/logs/system.jsonl").open("a") as file:
        file.write('{"step": 100, "torn')
    longer, _ = watched(yaml, driver, "max_iters=150")
    assert lines == longer[: len(lines)]
    assert longer[len(lines)]["elapsed_s"] > lines[-1]["elapsed_s"]
    assert longer[-1]["step"] > 100


def test_a_driver_that_fails_or_never_answers_disturbs_nothing(yaml: Path, driver: Path, data: Path) -> None:
    """The run ends as it would have and says once that it is not watched any more; what was seen stands."""
    go(config(data, Path("alone.yaml")), "max_iters=100", "sample.interval=0")
    for how, said in (("LOST", "GPU is lost"), ("HANGS", "the driver ")):
        lines, shown = watched(yaml, driver, "max_iters=100", **{f"STUB_{how}_AFTER": "5"})
        assert len(lines) == 5
        assert shown.count("The GPU is not watched any more (system.jsonl): ") == 1
        assert said in shown
        assert [line["loss"] for line in metrics("alone")] == [line["loss"] for line in metrics("tiny")]
        Path("results/tiny").rename(f"results/{how}")


def test_no_driver_at_all_is_said_once(yaml: Path) -> None:
    """libnvidia-ml.so.1 is not there."""
    said: list[str] = []
    train(yaml, "sample.interval=0", callbacks=[Watch(["GPU-aaaa"], 0.001, said.append)], stream=StringIO())
    assert ["The GPU is not watched any more (system.jsonl): NVML Shared Library Not Found"] == said


def test_the_card_is_known_by_uuid_and_address_never_by_number() -> None:
    """torch's cuda:0 may be any of NVML's cards, as CUDA_VISIBLE_DEVICES says."""
    card = SimpleNamespace(uuid="2b1a-77", pci_domain_id=0, pci_bus_id=0x65, pci_device_id=0)
    assert ["GPU-2b1a-77", "MIG-2b1a-77", "00000000:65:00.0"] == addresses(card)


def test_a_cpu_has_no_watch_and_neither_has_who_wants_none() -> None:
    """device cpu; system_interval_s 0."""
    assert gpu_watch("cpu", 1.0, print) is None
    assert gpu_watch("cuda", 0.0, print) is None


def test_a_week_makes_a_small_file() -> None:
    """From `LINES` looks on, the next comes after a `LINES`th of the time so far: 30 s after a week."""
    watch = Watch([], 1.0, print)
    for elapsed_s, pause_s in ((60, 1.0), (604_800, 604_800 / LINES)):
        watch._began = time.monotonic() - elapsed_s
        assert watch._pause_s() == pytest.approx(pause_s, rel=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_a_real_gpu_is_watched(yaml: Path) -> None:
    """The card that trains is the one that is seen: its memory is in use, its clocks are known."""
    go(yaml, "device=cuda", "max_iters=200", "system_interval_s=0.05", "precision=auto")
    lines = [json.loads(line) for line in Path("results/tiny/logs/system.jsonl").read_text().splitlines()]
    assert lines[-1]["memory_used_gib"] > 0.2
    assert 0 < lines[-1]["sm_clock_mhz"] <= lines[-1]["sm_clock_max_mhz"]
