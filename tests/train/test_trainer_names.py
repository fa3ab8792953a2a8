"""A run whose config is written in Hugging Face's names, as document 002 types it."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_corpus

from ganeum.cli import main
from ganeum.config import load_stored

SECTIONS = """\
eenzeenee:
  base: tiny.yaml
  training:
    per_device_train_batch_size: 4
    per_device_eval_batch_size: 4
    gradient_accumulation_steps: 2
    warmup_ratio: 0.25
    eval_strategy: epoch
    save_strategy: epoch
    num_train_epochs: 2
  inference:
    batch_size: 8
"""


def ganeum(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["train", *words])
    out, err = capsys.readouterr()
    assert end.value.code == 0, err
    return out


def test_document_002_s_command_trains(yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--config config.yaml --config-section eenzeenee --max_steps 10 --save_steps 1000`: 10 steps of 8 sequences, 4 at
    once; the run's own config is in our names, a share of the steps is counted, and the same command finds it done."""
    Path("config.yaml").write_text(SECTIONS)
    words = ["--config", "config.yaml", "--config-section", "eenzeenee", "--max_steps", "10", "--save_steps", "1000"]
    shown = ganeum(capsys, *words)
    assert shown.startswith(
        "Hugging Face's names in this config mean:\n"
        "  per_device_train_batch_size: 4, gradient_accumulation_steps: 2 → train.batch_size: 8, "
        "train.micro_batch_size: 4\n"
    )
    stored = load_stored("results/config-eenzeenee/config.yaml")
    train = stored.train
    assert (10, 8, 4, 1000) == (
        train.max_iters,
        train.batch_size,
        train.micro_batch_size,
        train.checkpoint_interval,
    )
    assert 3 == train.warmup_iters  # ceil(0.25 · 10), as transformers counts it
    assert "is finished: 10 steps" in ganeum(capsys, *words)


def test_an_evaluation_each_epoch_is_at_the_epochs_ends(yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`eval_strategy: epoch` over 2 epochs: a validation loss stands at the first epoch's last step and at the end."""
    Path("config.yaml").write_text(SECTIONS)
    ganeum(capsys, "config.yaml", "--config-section", "eenzeenee")
    data = Path(load_stored("results/config-eenzeenee/config.yaml").data.directory)
    tokens = (data / "train.bin").stat().st_size // 2
    steps = (tokens - 1) // 32 // 8  # windows of 32 tokens and one to predict, 8 a step
    evaluated = [line["step"] for line in tiny_corpus.metrics("config-eenzeenee") if "val_loss" in line]
    assert [steps, 2 * steps] == evaluated
