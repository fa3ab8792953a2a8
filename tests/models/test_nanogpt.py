"""nanoGPT's model and ours: the same weights give the same logits, in both directions."""

import json
import os
from pathlib import Path

import nanogpt
import pytest
import torch

from ganeum.config.schema import Model
from ganeum.models.build import build
from ganeum.models.formats import from_gpt2_names, nanogpt_checkpoint
from ganeum.models.weights import load_file_state, to_file_state

CLONE = os.environ.get("NANOGPT")
needs_clone = pytest.mark.skipif(CLONE is None, reason="NANOGPT names no clone of karpathy/nanoGPT")
CASES = pytest.mark.parametrize("number", range(len(nanogpt.CASES)))


def our_logits(case: dict) -> torch.Tensor:
    model = build(Model(**case, activation="gelu")).eval()
    load_file_state(model, from_gpt2_names(nanogpt.weights(case), transposed=False, tied=True))
    with torch.no_grad():
        return model(torch.tensor(nanogpt.TOKENS))


@CASES
def test_the_logits_nanogpt_gave(number):
    """Our logits are those that nanoGPT's model gave for the same weights (nanogpt_logits.json)."""
    expected = torch.tensor(json.loads(nanogpt.FIXTURE.read_text())[number])
    assert expected.std() > 0.5
    torch.testing.assert_close(our_logits(nanogpt.CASES[number]).flatten(0, 1), expected, rtol=1e-5, atol=1e-5)


@needs_clone
@CASES
def test_the_logits_nanogpt_gives(number):
    """Our logits are those of nanoGPT's unmodified model.py."""
    case = nanogpt.CASES[number]
    expected = nanogpt.logits(nanogpt.load(Path(CLONE)), case)
    torch.testing.assert_close(our_logits(case), expected, rtol=1e-5, atol=1e-5)


@needs_clone
@pytest.mark.parametrize(("bias", "qkv_bias"), [(True, None), (True, False), (False, None), (False, True)])
def test_nanogpt_reads_what_we_write(tmp_path, bias, qkv_bias):
    """A ckpt.pt of ours, read the way nanoGPT's sample.py reads it, gives our logits."""
    config = Model(
        n_layer=2, n_head=2, n_embd=16, block_size=6, vocab_size=24, activation="gelu", bias=bias, qkv_bias=qkv_bias
    )
    ours = build(config).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    torch.save(nanogpt_checkpoint(to_file_state(ours), config, step=7), tmp_path / "ckpt.pt")

    checkpoint = torch.load(tmp_path / "ckpt.pt", weights_only=True)
    module = nanogpt.load(Path(CLONE))
    theirs = module.GPT(module.GPTConfig(**checkpoint["model_args"])).eval()
    theirs.load_state_dict(checkpoint["model"])
    tokens = torch.tensor(nanogpt.TOKENS)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens, targets=tokens)[0], rtol=1e-5, atol=1e-5)
