"""init_from in a training: it starts where the weights are, and what does not fit leaves no run behind."""

import io

import numpy as np
import pytest
from made_run import run_with_checkpoint

from ganeum.config import load
from ganeum.config.schema import Model
from ganeum.data.tokenizer import Characters
from ganeum.errors import CheckpointError
from ganeum.models.weights import load_initial
from ganeum.train.run import train

CONFIG = """
name: b
model: {n_layer: 1, n_head: 2, n_embd: 16, block_size: 8}
data: {directory: corpus}
train: {batch_size: 2, micro_batch_size: 2, max_iters: 1, learning_rate: 1.0e-9, compile: false, init_from: a}
sample: {interval: 0}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A corpus of GPT-2 tokens in nanoGPT's form, and a run called `a`."""
    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "corpus").mkdir()
    np.random.default_rng(0).integers(50257, size=300).astype(np.uint16).tofile(tmp_path / "corpus/train.bin")
    run_with_checkpoint(
        tmp_path / "results/a",
        Model(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=50257),
        Characters("a"),
    )
    (tmp_path / "b.yaml").write_text(CONFIG)
    return tmp_path


def test_training_starts_from_the_weights(place):
    """With next to no learning rate, the weights after one step are those that init_from named."""
    train(load(place / "b.yaml"), stream=io.StringIO())
    model = Model(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=50257)
    before, after = load_initial("a", model), load_initial("b", model)
    assert max((before[name] - after[name]).abs().max().item() for name in before) < 1e-6


def test_another_shape_leaves_no_run(place):
    """Weights that do not fit are refused before a run directory is made, so the corrected command works."""
    with pytest.raises(CheckpointError, match="2 keys differ"):
        train(load(place / "b.yaml", ["model.n_layer=2", "model.n_head=4"]), stream=io.StringIO())
    assert not (place / "results/b").exists()
    train(load(place / "b.yaml"), stream=io.StringIO())
