"""A config and its plan to be written out, and how transformers reads what was."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ganeum.config import load
from ganeum.config.schema import Config
from ganeum.hardware.device import Device
from ganeum.plan import closed_form

CARD = Device(
    name="RTX 4080",
    kind="cuda",
    memory_gib=16.0,
    usable_gib=15.2,
    peak_flops_per_second={"fp32": 48.7e12, "tf32": 48.7e12, "bf16": 97.5e12, "fp16": 97.5e12},
    capability=(8, 9),
    memory_bandwidth_gb_s=717,
)
ROOT = Path(__file__).parents[2]


def planned(
    overrides: Sequence[str] = (), file: Path = ROOT / "configs" / "exp_v100" / "test_run.yaml"
) -> tuple[Config, Any]:
    """A config, and its plan for a 16 GB card with 10M tokens of data."""
    config = load(file, overrides)
    return config, closed_form.plan(config, device=CARD, tokens=10_000_000, vocab_size=50_257)


def arguments(text: str, **more: Any) -> Any:
    """transformers' TrainingArguments from the one section there is, read with PyYAML."""
    from transformers import TrainingArguments

    (section,) = yaml.safe_load(text).values()
    assert list(section) == ["training", "inference"]
    assert list(section["inference"]) == ["batch_size"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # gradient_checkpointing has a new name since 5.x
        return TrainingArguments(**section["training"], use_cpu=True, report_to=[], **more)
