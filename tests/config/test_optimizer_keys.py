"""Keys of the optimizer that exclude each other, by the full text that a user reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganeum.config import load
from ganeum.errors import ConfigError

TEXTS = {
    "  optimizer: sgd\n  parametrization: mup\n": """\
ConfigError: train.parametrization: mup has no rules for train.optimizer: sgd
  where  a.yaml, lines 3 and 4
  why    its rules are for updates whose size depends neither on the gradient's nor on the weight's
  try    train.optimizer: adamw, adamw8bit or muon; or train.parametrization: standard""",
    "  parametrization: mup\n  lora: {rank: 8}\n  init_from: x\n": """\
ConfigError: train.parametrization: mup and train.lora.rank exclude each other
  where  a.yaml, lines 3 and 4
  why    mup is about weights trained from their initialisation; adapters lie on trained ones
  try    train.parametrization: standard""",
    "  weights: bf16\n  precision: fp32\n": """\
ConfigError: train.weights is bf16, and train.precision fp32
  where  a.yaml, lines 3 and 4
  why    weights in bf16 are multiplied in bf16
  try    train.precision: bf16 or auto, or train.weights: fp32""",
}


@pytest.mark.parametrize("keys", TEXTS)
def test_what_excludes_each_other_is_refused(keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both keys are named with their lines, the reason, and what to write instead."""
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(f"train:\n  max_iters: 3\n{keys}")
    with pytest.raises(ConfigError) as caught:
        load(Path("a.yaml"))
    assert str(caught.value) == TEXTS[keys]


def test_what_goes_together_loads(tmp_path: Path) -> None:
    """mup with each adaptive optimizer, and bf16 weights with the precision left open."""
    for optimizer in ("adamw", "adamw8bit", "muon"):
        path = tmp_path / "a.yaml"
        path.write_text(f"train: {{max_iters: 3, optimizer: {optimizer}, parametrization: mup, weights: bf16}}\n")
        assert load(path).train.optimizer == optimizer
