"""Weights in files: without padding, tied once, and back into a model."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from ganeum.config.schema import Model
from ganeum.errors import CheckpointError
from ganeum.models.build import build
from ganeum.models.weights import load_file_state, to_file_state


def tiny(**keys) -> Model:
    return Model(**{"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 8, "vocab_size": 70, **keys})


@pytest.mark.parametrize("tied", [True, False])
def test_file_and_back(tmp_path, tied):
    """A model written to safetensors and read into another gives the same logits; the padding is not in the file."""
    torch.manual_seed(0)
    first, second = build(tiny(tie_embeddings=tied, bias=True)), build(tiny(tie_embeddings=tied, bias=True))
    save_file(to_file_state(first), tmp_path / "model.safetensors")
    state = load_file(tmp_path / "model.safetensors")
    assert state["token_embedding.weight"].shape == (70, 16)
    assert ("head.weight" in state) is not tied
    with torch.no_grad():
        second.token_embedding.weight[70:] = 1.0  # must be wiped
    load_file_state(second, state)
    tokens = torch.randint(70, (2, 8))
    assert torch.equal(first(tokens), second(tokens))
    assert second.token_embedding.weight[70:].abs().sum() == 0
    assert second.head.weight[70:].abs().sum() == 0


def test_compiled_model_gives_the_same_names():
    """A compiled model is written under the same names as an eager one."""
    model = build(tiny())
    assert list(to_file_state(torch.compile(model))) == list(to_file_state(model))


def test_no_copy():
    """Preparing a file costs no memory: the tensors are the model's own."""
    model = build(tiny())
    assert to_file_state(model)["token_embedding.weight"].data_ptr() == model.token_embedding.weight.data_ptr()


def test_what_does_not_fit_is_named_and_changes_nothing():
    """Weights of another shape are refused, each tensor named with both shapes, and the model stays as it was."""
    model, other = build(tiny()), build(tiny(n_layer=3, block_size=4, vocab_size=80))
    before = {name: tensor.clone() for name, tensor in to_file_state(model).items()}
    with pytest.raises(CheckpointError) as error:
        load_file_state(model, to_file_state(other), where="results/a/checkpoints/step-00000010")
    assert str(error.value) == (
        "CheckpointError: the weights do not fit the model: 8 of 15 tensors\n"
        "  where  results/a/checkpoints/step-00000010\n"
        "  why    blocks.2.norm_1.weight: not of this model\n"
        "         blocks.2.attention.qkv.weight: not of this model\n"
        "         blocks.2.attention.out.weight: not of this model\n"
        "         blocks.2.norm_2.weight: not of this model\n"
        "         blocks.2.mlp.up.weight: not of this model\n"
        "         blocks.2.mlp.down.weight: not of this model\n"
        "         token_embedding.weight: (70, 16) here, (80, 16) in the file\n"
        "         position_embedding.weight: (8, 16) here, (4, 16) in the file"
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in to_file_state(model).items())
