"""A damaged checkpoint that was passed over takes nothing from what is trained afterwards."""

from __future__ import annotations

from pathlib import Path

from tiny_corpus import go

from ganeum.record import RunDirectory
from ganeum.train import checkpoint

CHECKPOINTS = Path("results/tiny/checkpoints")


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_does_not_push_out_new_ones(yaml: Path) -> None:
    """keep_last 1, the newest of 16 and 20 damaged: 16 is gone on from, `latest` names it, and 18 stays when saved."""
    go(yaml, "keep_last=2")
    damage(CHECKPOINTS / "step-00000020" / "model.safetensors")
    run = RunDirectory(Path("results/tiny").resolve())
    saved = checkpoint.load_latest(run)
    assert saved is not None
    said: list[str] = []
    checkpoint.set_aside(run, saved.step, said.append)
    assert said == ["step-00000020 is kept as damaged-step-00000020, until another one is damaged"]
    checkpoint.point(run, None)
    assert (CHECKPOINTS / "latest").read_text() == "step-00000016\n"
    checkpoint.save(run, 18, saved.weights, saved.state, keep_last=1, best_step=None)
    assert checkpoint.steps(run) == [18]
    assert (CHECKPOINTS / "latest").read_text() == "step-00000018\n"


def test_going_on_sets_the_damaged_one_aside(yaml: Path) -> None:
    """The training itself does it, and writes step 20 anew."""
    go(yaml)
    damage(CHECKPOINTS / "step-00000020" / "model.safetensors")
    _, shown = go(yaml, "max_iters=24")
    assert "step-00000020 is kept as damaged-step-00000020" in shown
    assert (CHECKPOINTS / "damaged-step-00000020").is_dir()
    assert checkpoint.check(CHECKPOINTS / "step-00000020")


def test_a_copy_beside_the_checkpoints_is_none_of_them(yaml: Path) -> None:
    """step-00000020.bak, made by hand, does not keep the run from going on."""
    go(yaml)
    (CHECKPOINTS / "step-00000020.bak").mkdir()
    assert go(yaml, "max_iters=24")[0]["steps"] == 24
