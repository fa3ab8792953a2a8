"""TensorBoard and Weights & Biases see what metrics.jsonl holds, also after a death, and never a key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_corpus import go, metrics

from ganeum.errors import MissingExtra, RunError


def test_tensorboard_reads_each_step_once_after_a_resume(yaml: Path) -> None:
    """Points that a process wrote after its last checkpoint and before its death are void for TensorBoard too."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from ganeum.train import loop

    save, saves = loop.Loop._save, []

    def dies_at_the_third(self: loop.Loop) -> Path:
        saves.append(self.progress.step)
        if len(saves) == 3:
            raise SystemExit
        return save(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Loop, "_save", dies_at_the_third)
        with pytest.raises(SystemExit):
            go(yaml)
    assert saves == [4, 5, 8]
    go(yaml)
    events = EventAccumulator("results/tiny/logs").Reload()
    points = events.Scalars("loss")
    assert [(p.step, pytest.approx(p.value, rel=1e-6)) for p in points] == [
        (m["step"], m["loss"]) for m in metrics("tiny")
    ]


def test_wandb_that_is_not_installed_gives_the_pip_line(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before there is a directory."""
    from ganeum.train import trackers

    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as error:
        go(yaml, "wandb.project=p")
    assert str(error.value) == (
        "MissingExtra: log.wandb.project is set, and the package wandb is not installed\n"
        '  try    pip install "ganeum[wandb]", or log.wandb.project=null'
    )
    assert not Path("results/tiny").exists()


def test_wandb_without_a_key_says_where_it_is_looked_for(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Online, with the package and no key in the environment or `.env`: before there is a directory."""
    from ganeum.train import trackers

    monkeypatch.setattr(trackers, "find_spec", lambda name: True)
    monkeypatch.setenv("WANDB_API_KEY", "")  # put back afterwards
    with pytest.raises(RunError) as error:
        go(yaml, "wandb.project=p")
    assert str(error.value) == (
        "RunError: Weights & Biases needs a key, and there is none\n"
        "  where  WANDB_API_KEY, in the environment or in .env\n"
        "  try    a line WANDB_API_KEY=… in .env, or log.wandb.mode=offline (`wandb sync` sends it later)"
    )
    assert not Path("results/tiny").exists()


def test_wandb_offline_is_one_run_and_knows_no_key(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id outlives a resume, and the key from `.env` is in no file of the run."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", "")  # put back afterwards
    key = "0123456789abcdef" * 2 + "01234567"
    Path(".env").write_text(f"WANDB_API_KEY={key}\n")
    go(yaml, "wandb.project=p", "wandb.mode=offline", "max_iters=8")
    first = json.loads(Path("results/tiny/logs/wandb.json").read_text())
    go(yaml, "wandb.project=p", "wandb.mode=offline", "max_iters=12")
    assert first == json.loads(Path("results/tiny/logs/wandb.json").read_text())
    runs = {path.name.rpartition("-")[2] for path in Path("results/tiny/logs/wandb").glob("offline-run-*")}
    assert runs == {first["id"]}
    for path in Path("results").rglob("*"):
        assert not path.is_file() or key.encode() not in path.read_bytes(), path
