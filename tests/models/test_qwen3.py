"""The modern style is Qwen3: the same weights give the same logits and texts as transformers' Qwen3ForCausalLM."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from ganeum.config.schema import Model
from ganeum.data.bpe import BPE
from ganeum.data.for_transformers import save_for_transformers
from ganeum.errors import CheckpointError
from ganeum.models import qwen3, sources
from ganeum.models.build import build
from ganeum.models.export import export_huggingface, export_nanogpt, export_pth
from ganeum.models.generate import generate
from ganeum.models.gpt import GPT
from ganeum.models.weights import load_file_state, load_initial, restore, to_file_state

SMALL = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "hidden_size": 48,
    "intermediate_size": 80,
    "max_position_embeddings": 40,
    "vocab_size": 70,
}
SHAPES = {
    "one head": {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 2, "num_hidden_layers": 1},
    "every head its own keys": {"num_key_value_heads": 4, "head_dim": 12},
    "two heads share keys": {},
    "all heads share keys": {"num_key_value_heads": 1, "vocab_size": 64},
    "wide heads, far places": {"head_dim": 64, "rope_theta": 1e6, "max_position_embeddings": 300},
    "large epsilon": {"rms_norm_eps": 0.1, "num_hidden_layers": 3},
}


def theirs(tied: bool = True, **keys) -> Qwen3ForCausalLM:
    """transformers' model, its weights far from their start, norms too, so that a part that is left out shows."""
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(**SMALL | keys, tie_word_embeddings=tied, attn_implementation="eager", eos_token_id=None)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    return model


def ours(model: Qwen3ForCausalLM) -> GPT:
    keys = qwen3.model_of_huggingface(model.config.to_dict(), "here")
    result = build(Model(**keys, vocab_size=model.config.vocab_size)).eval()
    load_file_state(result, qwen3.from_names(model.state_dict(), tied=keys["tie_embeddings"]))
    return result


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_same_weights_same_logits(shape, tied):
    """In fp32 within 1e-5 of the largest logit, whatever the heads, their width, theta, epsilon and head."""
    model = theirs(tied, **SHAPES[shape])
    tokens = torch.randint(model.config.vocab_size, (2, model.config.max_position_embeddings))
    with torch.no_grad():
        expected = model(tokens).logits
        assert expected.std() > 0.1
        torch.testing.assert_close(ours(model)(tokens), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_with_torchs_own_attention_it_is_the_same(monkeypatch):
    """Where the written-out attention is not taken (long contexts, dropout, GPUs) the logits are theirs as well."""
    monkeypatch.setattr("ganeum.models.gpt.LONGEST", 0)
    model = theirs()
    tokens = torch.randint(70, (2, 40))
    with torch.no_grad():
        torch.testing.assert_close(ours(model)(tokens), model(tokens).logits, rtol=1e-5, atol=1e-4)


def test_in_bf16_it_is_as_near_to_fp32_as_theirs():
    """Under autocast our logits are at most as far from fp32's as transformers' own are, 1.2 times at the very most
    (rotation and norm are computed in fp32 here, and rounded once)."""
    model = theirs()
    mine, tokens = ours(model), torch.randint(70, (4, 40))
    with torch.no_grad():
        exact = model(tokens).logits
        with torch.autocast("cpu", torch.bfloat16):
            near, peer = mine(tokens).float(), model(tokens).logits.float()
    assert (near - exact).norm() < 1.2 * (peer - exact).norm()
    assert (near - exact).norm() < 0.03 * exact.norm()


def test_gradients_are_theirs():
    """The gradient of the loss for every weight within 1e-5 of its largest number: backward passes are written out."""
    model = theirs(tied=False)
    mine, tokens = ours(model), torch.randint(70, (2, 41))
    x, y = tokens[:, :-1], tokens[:, 1:]
    torch.nn.functional.cross_entropy(mine(x).flatten(0, 1), y.flatten()).backward()
    torch.nn.functional.cross_entropy(model(x).logits.flatten(0, 1), y.flatten()).backward()
    expected = qwen3.from_names({name: p.grad for name, p in model.named_parameters()}, tied=False)
    found = {name: p.grad[:70] if p.size(0) == 128 else p.grad for name, p in mine.named_parameters()}
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-5 * gradient.abs().max().item() + 1e-9)


@pytest.mark.parametrize("prompt", [[7], [1, 2, 3, 4, 5], list(range(30))])
def test_greedy_texts_are_theirs(prompt):
    """With the cache, every token is the one that transformers' generate takes."""
    model, length = theirs(), 40 - len(prompt)
    expected = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=length,
        do_sample=False,
        pad_token_id=0,
    )[0, len(prompt) :].tolist()
    assert len(set(expected)) > 3
    assert generate(ours(model), prompt, max_new_tokens=length, temperature=0.0) == [expected]


def test_beyond_the_context_half_of_it_is_read_again():
    """A text may be longer than the context; the next token then follows from the context's last half."""
    model = theirs(max_position_embeddings=8)
    text, window = [5, 6, 7], [5, 6, 7]
    for _ in range(30):
        with torch.no_grad():
            token = model(torch.tensor([window])).logits[0, -1].argmax().item()
        text.append(token)
        window = [*window, token] if len(window) < 8 else text[-4:]
    assert generate(ours(model), [5, 6, 7], max_new_tokens=30, temperature=0.0) == [text[3:]]


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("tied", [True, False])
def test_a_directory_of_transformers_comes_in(tmp_path, tied, sharded):
    """What save_pretrained wrote, in one file or in shards, starts a run and is restored with the same logits."""
    model = theirs(tied)
    model.save_pretrained(tmp_path, max_shard_size="20KB" if sharded else "1GB")
    assert (tmp_path / "model.safetensors.index.json").is_file() == sharded
    tokens = torch.randint(70, (2, 40))
    config = Model(
        style="modern", n_layer=2, n_head=4, n_kv_head=2, head_dim=24, n_embd=48, intermediate_size=80, block_size=40,
        vocab_size=70, tie_embeddings=tied,
    )  # fmt: skip
    started = build(config).eval()
    load_file_state(started, load_initial(tmp_path, config))
    with torch.no_grad():
        expected = model(tokens).logits
        for mine in (started, restore(tmp_path)):
            torch.testing.assert_close(mine(tokens), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("release", [4, 5])
@pytest.mark.parametrize("tied", [True, False])
def test_a_directory_for_transformers_goes_out(tmp_path, tied, release):
    """AutoModelForCausalLM loads what export wrote and computes our logits; AutoTokenizer gives our tokens. Release 4
    of transformers knows rope_theta beside the other keys only, release 5 the table as well."""
    tokenizer = BPE.train(["return self.x or self.y\n" * 9], 300)
    config = Model(
        style="modern", n_layer=2, n_head=4, n_kv_head=2, n_embd=32, block_size=64, vocab_size=tokenizer.vocab_size,
        tie_embeddings=tied, rope_theta=5e4, norm_eps=1e-4,
    )  # fmt: skip
    torch.manual_seed(0)
    model = build(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    export_huggingface(
        model,
        tmp_path / "out",
        end_of_text=tokenizer.end_of_text,
        write_tokenizer=lambda out: save_for_transformers(tokenizer, out, block_size=64),
    )
    if release == 4:
        written = json.loads((tmp_path / "out/config.json").read_text())
        del written["rope_parameters"]
        (tmp_path / "out/config.json").write_text(json.dumps(written))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(loaded) is Qwen3ForCausalLM
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")("return self.x", return_tensors="pt")["input_ids"]
    assert ids.tolist() == [tokenizer.encode("return self.x")]
    with torch.no_grad():
        torch.testing.assert_close(model(ids), loaded(ids).logits, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(restore(tmp_path / "out")(ids), model(ids))


def test_the_hubs_own_keys_are_read():
    """config.json of Qwen/Qwen3-0.6B, word for word, gives the shape that its authors publish."""
    published = {
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
        "initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 40960,
        "max_window_layers": 28, "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000,
        "sliding_window": None, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False, "vocab_size": 151936,
    }  # fmt: skip
    assert qwen3.model_of_huggingface(published, "here") == {
        "style": "modern", "n_layer": 28, "n_head": 16, "n_kv_head": 8, "head_dim": 128, "n_embd": 1024,
        "intermediate_size": 3072, "block_size": 40960, "rope_theta": 1e6, "norm_eps": 1e-6, "tie_embeddings": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"attention_bias": True}, "attention_bias is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types has 'sliding_attention'"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4.0}},
            "rope_scaling is of the type 'yarn'",
        ),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            "rope_parameters has partial_rotary_factor",
        ),
        ({"rope_scaling": "yarn"}, "rope_scaling is 'yarn'"),
        ({"layer_types": 5}, "layer_types is 5"),
        ({"layer_types": [None]}, "layer_types has None"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config is there"),
    ],
)
def test_what_would_compute_something_else_is_refused(tmp_path, keys, what):
    """A Qwen3 with a window, scaled positions, biases or quantised weights is never read as a plain one."""
    theirs().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    with pytest.raises(CheckpointError) as error:
        sources.read(tmp_path)
    assert str(error.value) == (
        f"CheckpointError: the model is a Qwen3 that our GPT does not compute: {what}\n"
        f"  where  {path}\n"
        "  why    computed are rotary positions without scaling, full attention in every layer, SiLU, and no biases"
    )


def test_a_config_that_does_not_tell_is_refused(tmp_path):
    """No size is guessed: what config.json leaves out is named."""
    theirs().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3", "hidden_size": 48, "num_hidden_layers": "2"}')
    with pytest.raises(CheckpointError) as error:
        sources.read(tmp_path)
    assert str(error.value) == (
        "CheckpointError: config.json does not tell the model's num_hidden_layers, num_attention_heads, "
        "num_key_value_heads, head_dim, intermediate_size, max_position_embeddings, rms_norm_eps, rope_theta\n"
        f"  where  {tmp_path / 'config.json'}\n"
        "  why    a Qwen3 has them all"
    )


def test_names_there_and_back():
    """Our names → Qwen3's → ours changes nothing, and theirs are the very names that transformers has."""
    model = theirs(tied=False)
    state = to_file_state(ours(model))
    there = qwen3.to_names(state, ours(model).config)
    assert there.keys() == model.state_dict().keys()
    back = qwen3.from_names(there, tied=False)
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert back.keys() == state.keys()


def test_a_model_without_a_head_is_understood(tmp_path):
    """Qwen3Model has the same names without `model.`, and no head."""
    model = Qwen3Model(Qwen3Config(**SMALL, tie_word_embeddings=True))
    model.save_pretrained(tmp_path)
    assert sources.read(tmp_path).model["tie_embeddings"]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.q_proj.bias is not a tensor of a Qwen3"),
        ("model.layers.0.self_attn.rotary", "model.layers.0.self_attn.rotary is not a tensor of a Qwen3"),
        ("model.layers.9.self_attn.q_proj.weight", "blocks.9.attention.qkv.weight cannot be put together: "
         "self_attn.k_proj and self_attn.v_proj are missing"),
    ],
)  # fmt: skip
def test_strange_tensors_are_named(name, what):
    """A tensor that no Qwen3 has, or a part of one, is refused."""
    with pytest.raises(CheckpointError) as error:
        qwen3.from_names(theirs().state_dict() | {name: torch.ones(2, 2)}, tied=True)
    assert error.value.what == what


def test_a_pth_does_not_tell_all(tmp_path):
    """A plain state dict starts a run of its shape, but from it alone no model can be built."""
    mine = ours(theirs())
    export_pth(mine, tmp_path / "a.pth")
    state = load_initial(tmp_path / "a.pth", mine.config)
    assert all(torch.equal(state[name], tensor) for name, tensor in to_file_state(mine).items())
    with pytest.raises(CheckpointError) as error:
        restore(tmp_path / "a.pth")
    assert error.value.what == "a state dict does not tell the model's norm_eps, block_size, rope_theta"


def test_nanogpt_cannot_compute_it(tmp_path):
    """nanoGPT's format is refused, and nothing is written."""
    with pytest.raises(CheckpointError) as error:
        export_nanogpt(ours(theirs()), tmp_path / "out")
    assert str(error.value) == (
        "CheckpointError: nanoGPT cannot compute this model: its style is always gpt2\n"
        "  try    ganeum export --format hf"
    )
    assert not (tmp_path / "out").exists()


def test_another_shape_is_refused_with_what_to_type(tmp_path):
    """Every differing key is named with both values; typing what is suggested makes it fit. A context may be longer:
    rotary positions are computed."""
    theirs().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError) as error:
        load_initial(tmp_path, Model(n_layer=3, n_head=4, n_embd=64, block_size=50, vocab_size=70))
    assert str(error.value) == (
        "CheckpointError: the weights are of another shape than the model: 6 keys differ\n"
        f"  where  {tmp_path}\n"
        "  why    model.style: gpt2 here, modern in the Hugging Face directory\n"
        "         model.n_layer: 3 here, 2 in the Hugging Face directory\n"
        "         model.n_kv_head: 4 here, 2 in the Hugging Face directory\n"
        "         model.head_dim: 12 here, 24 in the Hugging Face directory\n"
        "         model.n_embd: 64 here, 48 in the Hugging Face directory\n"
        "         model.intermediate_size: 128 here, 80 in the Hugging Face directory\n"
        "  try    model.style=modern model.n_layer=2 model.n_kv_head=2 model.head_dim=24 model.n_embd=48 "
        "model.intermediate_size=80"
    )
    typed = dict(pair.removeprefix("model.").split("=") for pair in error.value.suggestion.split())
    numbers = {key: value if key == "style" else int(value) for key, value in typed.items()}
    load_initial(tmp_path, Model(n_head=4, block_size=50, vocab_size=70, **numbers))


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ((32,), r"blocks.0.attention.qkv.weight cannot be put together: .*q_proj, .* are \[32\], "),
        ((7, 48), "'blocks.0.attention.qkv.weight' is not as it should be"),
    ],
)
def test_queries_of_a_strange_shape_are_refused(tmp_path, shape, what):
    """Cut off, or flat: neither a traceback nor a model with no heads of keys."""
    theirs().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file) | {"model.layers.0.self_attn.q_proj.weight": torch.zeros(shape)}
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=what):
        sources.read(tmp_path)
