"""Two real runs, trained once for all tests that lay records beside each other."""

from __future__ import annotations

import sys
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from compared import alone, undisturbed

from ganeum.config import load
from ganeum.record import RunDirectory
from ganeum.train.run import train

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
tiny_corpus: Any = import_module("tiny_corpus")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with two runs in them, `plain` and `small`, which takes one sequence at once and recomputes."""
    root = tmp_path_factory.mktemp("compared")
    data = tiny_corpus.write(root / "words")
    config = tiny_corpus.config(data, root / "tiny.yaml")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANEUM_RESULTS", str(root / "results"))
        patch.setenv("GANEUM_CACHE", str(root / "cache"))
        common = ["max_iters=20", "log.interval=1", "sample.interval=0", "log.tensorboard=false", "eval_interval=20"]
        common += ["train.checkpoint_interval=20", "train.micro_batch_size=8"]
        changed = ["train.micro_batch_size=1", "train.activation_checkpointing=whole", "train.eval_interval=4"]
        for name, keys in (("plain", []), ("small", changed)):
            train(load(config, [*common, f"name={name}", *keys]), stream=StringIO())
            alone(undisturbed(RunDirectory(root / "results" / name)))
    torch.set_num_threads(threads)
    return root / "results"
