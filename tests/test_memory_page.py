"""docs/memory.md says what was measured, and every row of benchmarks/memory.py is a step that runs."""

from __future__ import annotations

import importlib.util
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parent.parent
TINY = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 32, "vocab_size": 200, "batch": 4}


def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("memory_benchmark", ROOT / "benchmarks" / "memory.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MEMORY = benchmark()
SAME = ("plain", "activation checkpointing, selective", "activation checkpointing, whole")
NEARLY = ("logits of the whole batch at once", "gradient accumulation, 4 micro-batches", "whole + accumulation")


def test_the_pages_tables_are_those_of_the_result_files() -> None:
    """`python benchmarks/memory.py --write` would change nothing."""
    text = MEMORY.PAGE.read_text(encoding="utf-8")
    assert MEMORY.page(text) == text


@pytest.fixture(scope="module")
def plain_loss() -> float:
    return row("plain")["loss"]


def row(lever: str) -> dict[str, float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(MEMORY.SIZES, "cpu", TINY)
            found: dict[str, float] = MEMORY.measure(Namespace(device="cpu", lever=lever, steps=2, warmup=1))
            return found
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("lever", [name for name in MEMORY.LEVERS if name != "expandable segments off"])
def test_every_lever_takes_a_step(lever: str, plain_loss: float) -> None:
    """Three of them; those that promise the plain run's loss have it, bit for bit or but for rounding."""
    if "LoRA" in lever:
        pytest.importorskip("peft", reason="the extra `lora` is not installed")
    if "8 bits" in lever:
        pytest.importorskip("torchao", reason="the extra `8bit` is not installed")
    found = row(lever)
    assert found["step_s"] > 0
    assert 0 < found["loss"] < 6
    if lever in SAME:
        assert found["loss"] == plain_loss
    if lever in NEARLY:
        assert found["loss"] == pytest.approx(plain_loss, rel=1e-3)


def test_a_table_shows_a_result_and_an_error() -> None:
    """Saved is a share of the plain row's peak; a row that failed shows its error."""
    figures = {"peak_gib": 2.0, "planned_gib": 1.9, "step_s": 1.0, "loss": 5.0, "times_plain": 1.0}
    rows = [
        {"lever": "plain", **figures, "loss_difference": 0.0},
        {"lever": "whole", **figures, "peak_gib": 0.5, "times_plain": 1.25, "loss_difference": 0.0},
        {"lever": "8 bits", **figures, "loss_difference": -0.01},
        {"lever": "broken", "error": "no memory"},
    ]
    machine = {"device": "a CPU", "threads": 2, "torch": "2.13.0", "date": "2026-11-21"}
    result = {"machine": machine, "size": TINY, "device": "cpu", "precision": "bf16", "rounds": 2, "steps": 3}
    assert MEMORY.table(result | {"rows": rows}).splitlines() == [
        "2 blocks × 32, 4 sequences of 32 tokens, vocabulary 200, bf16; a CPU, 2 threads, torch 2.13.0, 2026-11-21; "
        "2 rounds by turns of 3 steps.",
        "",
        "| | peak, GiB | saved | planned, GiB | step time | loss beside plain |",
        "|---|--:|--:|--:|--:|--:|",
        "| plain | 2.00 |  | 1.90 | × 1.00 |  |",
        "| whole | 0.50 | 75% | 1.90 | × 1.25 | equal |",
        "| 8 bits | 2.00 | 0% | 1.90 | × 1.00 | -0.0100 |",
        "| broken | no memory | | | | |",
    ]
