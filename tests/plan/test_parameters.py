"""The parameters of a model, counted before there is one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganeum.config.schema import Model
from ganeum.models.gpt import GPT
from ganeum.plan import parameters

GPT2 = 50_257
ONE_BOOK = {
    "n_layer": 12,
    "n_head": 12,
    "n_embd": 768,
    "block_size": 32,
    "bias": True,
    "qkv_bias": False,
    "tie_embeddings": False,
}


@pytest.mark.parametrize(
    ("expected", "model"),
    [
        pytest.param(162_247_680, Model(**ONE_BOOK), id="document 000, 32 positions"),
        pytest.param(162_321_408, Model(**ONE_BOOK | {"block_size": 128}), id="document 000, 128 positions"),
        pytest.param(
            124_439_808, Model(n_layer=12, n_head=12, n_embd=768, block_size=1024, bias=True), id="gpt2 on the hub"
        ),
        pytest.param(
            354_823_168, Model(n_layer=24, n_head=16, n_embd=1024, block_size=1024, bias=True), id="gpt2-medium"
        ),
    ],
)
def test_published_counts(expected: int, model: Model) -> None:
    """Models whose size is published come out at that size."""
    assert expected == parameters.count(model, GPT2).total


models = st.builds(
    lambda n_head, head_dim, **rest: Model(n_head=n_head, n_embd=n_head * head_dim, **rest),
    n_head=st.integers(1, 4),
    head_dim=st.integers(1, 6),
    n_layer=st.integers(1, 3),
    block_size=st.integers(1, 20),
    bias=st.booleans(),
    qkv_bias=st.sampled_from([None, True, False]),
    tie_embeddings=st.booleans(),
    vocab_size=st.integers(1, 200),
)


@settings(max_examples=60, deadline=None)
@given(models)
def test_counts_are_those_of_the_built_model(model: Model) -> None:
    """Whatever the config, the closed form is what torch counts, less the rows that pad the vocabulary."""
    assert isinstance(model.vocab_size, int)
    built = GPT(model)
    padding = (built.token_embedding.num_embeddings - model.vocab_size) * model.n_embd
    tables = 1 if model.tie_embeddings else 2
    counted = parameters.count(model, model.vocab_size)
    blocks = sum(p.numel() for p in [*built.blocks.parameters(), *built.norm.parameters()])
    matrices = sum(p.numel() for p in built.blocks.parameters() if p.dim() == 2)
    assert sum(p.numel() for p in built.parameters()) - tables * padding == counted.total == counted.trainable
    assert blocks == counted.non_embedding
    assert matrices + model.vocab_size * model.n_embd == counted.matmul
    assert counted.total == sum(counted.by_component.values())
