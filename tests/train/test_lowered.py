"""A micro-batch that the queue has lowered, because memory had killed the process: the run goes on with it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import tiny_corpus

from ganeum.config import load_stored
from ganeum.queue.settle import lower_micro_batch
from ganeum.record import find
from ganeum.train.progress import Progress
from ganeum.train.within_memory import MICRO, WithinMemory


def test_a_run_goes_on_with_a_lowered_micro_batch(yaml: Path) -> None:
    """Both its own config and the frozen one say the smaller number, and the batch it learns with is the same."""
    tiny_corpus.go(yaml, "max_iters=8")
    run = find("tiny")
    run.queued_dir.mkdir()
    frozen = run.queued_dir / "config.yaml"
    frozen.write_bytes(run.config_path.read_bytes())
    lower_micro_batch(run, 2)
    assert [(8, 2), (8, 2)] == [
        (config.train.batch_size, config.train.micro_batch_size)
        for config in (load_stored(run.config_path), load_stored(frozen))
    ]
    tiny_corpus.go(frozen, "max_iters=12")
    status = run.status()
    assert status
    assert ("finished", 12) == (status.state, status.step)


def test_the_smaller_of_both_counts(yaml: Path) -> None:
    """What the trainer had lowered by itself stays lowered, and what the queue lowered further is further."""
    tiny_corpus.go(yaml, "max_iters=4")
    config = load_stored(find("tiny").config_path)  # 4 at once
    for lowered, size in ((2, 2), (8, 4)):
        progress = Progress(out_of_memory=[{"step": 1, "key": MICRO, "before": 8, "after": lowered, "said": ""}])
        within = SimpleNamespace(config=config, progress=progress)
        assert size == WithinMemory.micro_batch_size.fget(within)  # type: ignore[attr-defined]
