"""What a backwards plan answers is a config that trains."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from tiny_corpus import metrics

from ganeum import load_run, train
from ganeum.data.meta import Meta
from ganeum.hardware.device import Device
from ganeum.plan import backwards


def test_an_answer_trains(here: Path, data: Path) -> None:
    """The config for some seconds of a slow CPU, as it is written, trains, and its loss falls."""
    meta = Meta.read(data)
    assert meta is not None
    answer = backwards.search(
        Device("a CPU", "cpu", 8.0, 6.0, {"fp32": 5e10}),
        hours=0.01,
        context=32,
        vocab_size=meta.vocab_size,
        tokens_available=meta.train.tokens,
        directory=str(data),
    )
    file = here / "answer.yaml"
    file.write_text(answer.yaml(), encoding="utf-8")
    train(file, "max_iters=20", stream=StringIO())
    kept, asked = load_run("a-cpu-0.6min").config, answer.best.config
    assert kept.train.batch_size == asked.train.batch_size
    assert kept.model.n_embd == asked.model.n_embd
    losses = [line["loss"] for line in metrics("a-cpu-0.6min") if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
