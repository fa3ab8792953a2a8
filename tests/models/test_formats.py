"""Our GPT is GPT-2: the same weights give the same logits as transformers' model."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ganeum.config.schema import Model
from ganeum.errors import CheckpointError
from ganeum.models.build import build
from ganeum.models.formats import (
    from_gpt2_names,
    huggingface_config,
    model_of_huggingface,
    to_gpt2_names,
    with_all_biases,
)
from ganeum.models.weights import load_file_state, to_file_state


def scramble(model: torch.nn.Module, seed: int) -> None:
    """Weights far from their start, biases and norms too, so that a part that is left out shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)


SHAPES = [
    {"n_layer": 1, "n_head": 1, "n_embd": 8, "n_positions": 5, "vocab_size": 3},
    {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 16, "vocab_size": 100},
    {"n_layer": 3, "n_head": 3, "n_embd": 48, "n_positions": 33, "vocab_size": 128},
    {"n_layer": 4, "n_head": 2, "n_embd": 64, "n_positions": 64, "vocab_size": 1001},
]


@pytest.mark.parametrize("others", [{}, {"n_inner": 20, "layer_norm_epsilon": 1e-3}], ids=["usual", "unusual"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("activation", ["gelu_new", "gelu"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape['n_layer']}x{shape['n_embd']}")
def test_same_logits_as_transformers(shape, activation, tied, others):
    """GPT2LMHeadModel's weights in our GPT give GPT2LMHeadModel's logits, also with another MLP and epsilon.
    Sums of fp32 in another order are up to 1.1e-5 of the largest logit apart."""
    torch.manual_seed(shape["n_layer"])
    theirs = GPT2LMHeadModel(
        GPT2Config(
            **shape,
            **others,
            activation_function=activation,
            tie_word_embeddings=tied,
            attn_implementation="eager",
        )
    ).eval()
    scramble(theirs, seed=shape["n_layer"])
    keys = model_of_huggingface(theirs.config.to_dict(), "here")
    assert keys["tie_embeddings"] is tied
    ours = build(Model(**keys, block_size=shape["n_positions"], vocab_size=shape["vocab_size"], bias=True)).eval()
    load_file_state(ours, from_gpt2_names(theirs.state_dict(), transposed=True, tied=tied))
    tokens = torch.randint(shape["vocab_size"], (3, shape["n_positions"]))
    with torch.no_grad():
        expected = theirs(tokens).logits
        assert expected.std() > 0.1
        torch.testing.assert_close(ours(tokens), expected, rtol=1e-5, atol=5e-5 * expected.abs().max().item())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("bias", "qkv_bias"), [(True, None), (True, False), (False, None), (False, True)])
def test_models_with_fewer_biases_become_gpt2_exactly(bias, qkv_bias, tied):
    """A model without some biases is a GPT-2 whose biases are zero: the same logits from transformers; whatever its
    MLP and epsilon."""
    config = Model(
        n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=70,
        bias=bias, qkv_bias=qkv_bias, tie_embeddings=tied, activation="gelu", intermediate_size=40, norm_eps=1e-2,
    )  # fmt: skip
    ours = build(config).eval()
    scramble(ours, seed=1)
    ours.token_embedding.weight.data[70:] = 0
    theirs = GPT2LMHeadModel(GPT2Config(**huggingface_config(config, end_of_text=None))).eval()
    state = to_gpt2_names(with_all_biases(to_file_state(ours)), transposed=True)
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"] if tied else [], [])
    theirs.tie_weights()
    tokens = torch.randint(70, (3, 16))
    with torch.no_grad():
        expected = theirs(tokens).logits
        torch.testing.assert_close(ours(tokens), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("tied", [True, False])
def test_names_there_and_back(tied):
    """Our names → GPT-2's → ours changes nothing."""
    state = to_file_state(build(Model(n_layer=2, n_head=2, n_embd=8, block_size=4, vocab_size=9, tie_embeddings=tied)))
    for transposed in (True, False):
        back = from_gpt2_names(to_gpt2_names(state, transposed=transposed), transposed=transposed, tied=tied)
        assert list(back) == list(state)
        assert all(torch.equal(back[name], state[name]) for name in state)


def test_old_files_of_the_hub_are_understood():
    """The hub's own gpt2 has no `transformer.` before its names and carries its causal masks along; both are fine."""
    theirs = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, n_positions=4, vocab_size=9))
    state = dict(theirs.transformer.state_dict()) | {"h.0.attn.bias": torch.ones(1, 1, 4, 4)}
    plain = from_gpt2_names(theirs.state_dict(), transposed=True, tied=True)
    assert from_gpt2_names(state, transposed=True, tied=True).keys() == plain.keys()


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"n_head": 5}, "CheckpointError: 12 layers, 5 heads and a width of 64 are no model"),
        ({"n_layer": "2"}, "CheckpointError: 2 layers, 4 heads and a width of 64 are no model"),
        ({"scale_attn_by_inverse_layer_idx": True}, "CheckpointError: scale_attn_by_inverse_layer_idx is True"),
        ({"activation_function": "relu"}, "CheckpointError: activation_function is 'relu'"),
    ],
)
def test_what_is_not_our_gpt_is_refused(keys, what):
    """A config.json of another architecture, or of a variant that would compute something else, is refused."""
    with pytest.raises(CheckpointError) as error:
        model_of_huggingface({"model_type": "gpt2", "n_embd": 64, "n_head": 4, **keys}, "exported/config.json")
    assert str(error.value).splitlines()[:2] == [what, "  where  exported/config.json"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        # transformers: sum(p.numel() for p in GPT2LMHeadModel(GPT2Config()).parameters()); the GPT-2 paper's "124M"
        ({"block_size": 1024, "tie_embeddings": True}, 124_439_808),
        # 2 × 50,257 × 768 + 32 × 768 + 12 × (3·768² + 768² + 768 + 8·768² + 3072 + 768 + 4·768) + 2·768
        ({"block_size": 32, "tie_embeddings": False, "qkv_bias": False}, 162_247_680),
        ({"block_size": 128, "tie_embeddings": False, "qkv_bias": False}, 162_321_408),
    ],
)
def test_parameter_counts(keys, expected):
    """The published GPT-2 small, and one trained on a single book, have the parameters their arithmetic says."""
    with torch.device("meta"):
        model = build(Model(n_layer=12, n_head=12, n_embd=768, bias=True, vocab_size=50257, **keys))
    stored = sum(parameter.numel() for parameter in model.parameters())  # named once, tied or not
    padding = model.token_embedding.weight.size(0) - model.vocab_size
    assert expected == stored - (1 if keys["tie_embeddings"] else 2) * padding * 768
