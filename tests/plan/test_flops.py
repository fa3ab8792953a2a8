"""FLOPs in closed form, beside torch's own counter on the real model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ganeum.config.schema import Model
from ganeum.models.gpt import GPT, padded_vocab_size
from ganeum.plan import flops, parameters

ONE_BOOK = Model(
    n_layer=12, n_head=12, n_embd=768, block_size=32, bias=True, qkv_bias=False, tie_embeddings=False, vocab_size=50_257
)


def test_document_000s_step() -> None:
    """Document 000's step of 128 × 32 tokens costs 3.05 TFLOP, worked out by hand from its shapes."""
    blocks = 12 * (768 * 2304 + 768 * 768 + 768 * 3072 + 3072 * 768)
    forward = 2 * (blocks + 768 * 50_257) + 12 * 2 * (2 * 32 * 768)
    found = flops.count(ONE_BOOK, parameters.count(ONE_BOOK, 50_257))
    assert 3 * forward * 128 * 32 == found.per_token * 4096 == 3_050_418_733_056
    assert found.recomputed_per_token == 0


SHAPES = {
    "gpt2": {"bias": True},
    "gpt2, narrow MLP": {"intermediate_size": 24},
    "modern": {"style": "modern"},
    "modern, shared keys, wide heads": {"style": "modern", "n_head": 4, "n_kv_head": 2, "head_dim": 24},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("vocab_size", [128, 100])
def test_torch_counts_the_same(tied: bool, vocab_size: int, shape: str) -> None:
    """FlopCounterMode sees exactly the closed form's work, forward and backward, and that of the padding's rows.

    Attention is run as plain products here, in one block of queries: torch's counter adds to fused kernels the scores
    that their backward pass computes again, and blocks of queries leave out most of the masked half. The first block's
    input needs a gradient (the embeddings learn), so no product is left out.
    """
    size = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16} | SHAPES[shape]
    model = Model(**size, tie_embeddings=tied, vocab_size=vocab_size)
    B, T = 3, model.block_size
    tokens, targets = torch.randint(0, vocab_size, (B, T)), torch.randint(0, vocab_size, (B, T))
    built = GPT(model)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = built(tokens)
        forward = counter.get_total_flops()
        F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    expected = flops.count(model, parameters.count(model, vocab_size))
    padding = 2 * (padded_vocab_size(vocab_size) - vocab_size) * model.n_embd
    assert forward == B * T * (expected.forward_per_token + padding)
    assert counter.get_total_flops() == B * T * (expected.per_token + 3 * padding)
