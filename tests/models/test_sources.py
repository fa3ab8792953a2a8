"""init_from: weights from everything a user may point at, and clear refusals of the rest."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from made_run import run_with_checkpoint
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

from ganeum.config.schema import Model
from ganeum.errors import CheckpointError
from ganeum.models import sources
from ganeum.models.build import build
from ganeum.models.formats import nanogpt_checkpoint
from ganeum.models.shape import of_config
from ganeum.models.weights import load_file_state, load_initial, to_file_state

NANO = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 8, "vocab_size": 70, "activation": "gelu"}


def tiny(**keys) -> Model:
    return Model(**{**NANO, "activation": "gelu_tanh", **keys})


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.arange(8)[None])


def started_from(path: Path, config: Model) -> torch.Tensor:
    model = build(config)
    load_file_state(model, load_initial(path, config))
    return logits(model)


def test_a_checkpoint_directory(tmp_path):
    """A checkpoint's directory gives its weights back, and its run's config tells what tensors do not."""
    model = run_with_checkpoint(tmp_path / "a", tiny(n_head=4, qkv_bias=True))
    path = tmp_path / "a/checkpoints/step-00000010"
    assert torch.equal(started_from(path, tiny(n_head=4, qkv_bias=True)), logits(model))
    assert sources.read(path).model == of_config(tiny(n_head=4, qkv_bias=True))


def test_a_run_gives_its_best_checkpoint(tmp_path):
    """A run's directory means the checkpoint that `best` names."""
    model = run_with_checkpoint(tmp_path / "a", tiny())
    assert torch.equal(started_from(tmp_path / "a", tiny()), logits(model))


def test_a_run_by_its_name(tmp_path, monkeypatch):
    """A run's name is found among the results."""
    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path))
    model = run_with_checkpoint(tmp_path / "a", tiny())
    assert torch.equal(started_from("a", tiny()), logits(model))


@pytest.mark.parametrize("form", ["safetensors", "sharded", "bin"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_hugging_face_directory(tmp_path, form, tied):
    """What transformers' save_pretrained wrote (in one file, in shards, as an old .bin) has the same logits here."""
    theirs = GPT2LMHeadModel(
        GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=8, vocab_size=70, tie_word_embeddings=tied)
    ).eval()
    theirs.save_pretrained(tmp_path, max_shard_size="5KB" if form == "sharded" else "1GB")
    assert (tmp_path / "model.safetensors.index.json").is_file() == (form == "sharded")
    if form == "bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    config = tiny(bias=True, tie_embeddings=tied)
    with torch.no_grad():
        torch.testing.assert_close(
            started_from(tmp_path, config), theirs(torch.arange(8)[None]).logits, rtol=1e-5, atol=1e-6
        )
    assert sources.read(tmp_path).model == of_config(config)


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_nanogpt_checkpoint(tmp_path, prefix):
    """nanoGPT's ckpt.pt starts a model, compiled prefix or not; its vocabulary's padding (128 rows for 70) is cut."""
    padded = build(Model(**{**NANO, "vocab_size": 128})).eval()
    checkpoint = nanogpt_checkpoint(to_file_state(padded), padded.config, step=5)
    checkpoint["model"] = {prefix + name: tensor for name, tensor in checkpoint["model"].items()}
    checkpoint["config"] = {"dataset": "shakespeare", "compile": True, "dtype": "float16"}
    checkpoint["best_val_loss"] = torch.tensor(3.2)
    torch.save(checkpoint, tmp_path / "ckpt.pt")
    for path in (tmp_path, tmp_path / "ckpt.pt"):
        assert torch.equal(started_from(path, Model(**NANO)), logits(padded)[..., :70])
    assert sources.read(tmp_path).model == of_config(padded.config)


def test_a_plain_state_dict(tmp_path):
    """A .pth of our own names starts a model."""
    model = build(tiny())
    torch.save(to_file_state(model), tmp_path / "a.pth")
    assert torch.equal(started_from(tmp_path / "a.pth", tiny()), logits(model))


def test_fewer_positions_are_cut_off(tmp_path):
    """A model with a shorter context starts with the first positions, and reads short texts the same."""
    model = run_with_checkpoint(tmp_path / "a", tiny())
    short = build(tiny(block_size=4))
    load_file_state(short, load_initial(tmp_path / "a", tiny(block_size=4)))
    tokens = torch.arange(4)[None]
    torch.testing.assert_close(short.eval()(tokens), model(tokens))


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ({"bias": False}, {"bias": True}),
        ({"bias": True}, {"bias": False}),  # they are zero at the start
        ({"bias": True, "qkv_bias": False}, {"bias": True}),
        ({"tie_embeddings": True}, {"tie_embeddings": False}),
    ],
)
def test_what_can_be_bridged_is_bridged_exactly(tmp_path, there, here):
    """Biases of zero are added or left out and a tied head is copied: the logits stay the same."""
    model = run_with_checkpoint(tmp_path / "a", tiny(**there))
    torch.testing.assert_close(started_from(tmp_path / "a", tiny(**here)), logits(model))


def test_another_shape_is_refused_with_what_to_type(tmp_path):
    """Every differing key is named with both values, and the overrides that make it fit."""
    run_with_checkpoint(tmp_path / "a", tiny(activation="gelu"))
    path = tmp_path / "a/checkpoints/step-00000010"
    with pytest.raises(CheckpointError) as error:
        load_initial(path, tiny(n_layer=6, n_head=4, n_embd=32, block_size=16, vocab_size=99))
    assert str(error.value) == (
        "CheckpointError: the weights are of another shape than the model: 6 keys differ\n"
        f"  where  {path}\n"
        "  why    model.n_layer: 6 here, 2 in the checkpoint\n"
        "         model.n_head: 4 here, 2 in the checkpoint\n"
        "         model.n_embd: 32 here, 16 in the checkpoint\n"
        "         model.activation: gelu_tanh here, gelu in the checkpoint\n"
        "         model.block_size: 16 here, 8 in the checkpoint (positions can be cut off, not invented)\n"
        "         model.vocab_size: 99 here, 70 in the checkpoint\n"
        "  try    model.n_layer=2 model.n_head=2 model.n_embd=16 model.activation=gelu model.block_size=8\n"
        "         data prepared with the tokenizer of the weights (70 tokens)"
    )


@pytest.mark.parametrize(
    ("there", "here", "line"),
    [
        ({"bias": True}, {"bias": False}, "model.bias: false here, true in the checkpoint"),
        ({"bias": True}, {"bias": True, "qkv_bias": False}, "model.qkv_bias: false here, true in the checkpoint"),
        ({"tie_embeddings": False}, {}, "model.tie_embeddings: true here, false in the checkpoint"),
    ],
)
def test_what_would_be_lost_is_refused(tmp_path, there, here, line):
    """Biases that are not zero and a head of its own are not thrown away silently."""
    model = run_with_checkpoint(tmp_path / "a", tiny(**there))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    save_file(to_file_state(model), tmp_path / "a/checkpoints/step-00000010/model.safetensors")
    with pytest.raises(CheckpointError, match="1 key differs") as error:
        load_initial(tmp_path / "a", tiny(**here))
    assert error.value.why == line


class Payload:
    """What a hostile pickle looks like: unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["ckpt.pt", "weights.pth", "pytorch_model.bin"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, name):
    """A file that would run code when unpickled is refused, and nothing of it ran."""
    victim, path = tmp_path / "victim", tmp_path / name
    torch.save({"model": {}, "model_args": Payload(victim)}, path)
    torch.load(path, weights_only=False)
    assert victim.exists(), "the payload works when it is let loose"
    victim.unlink()
    with pytest.raises(CheckpointError) as error:
        load_initial(path, tiny())
    assert not victim.exists()
    assert str(error.value) == (
        f"CheckpointError: {name} is refused: it is damaged, or holds more than tensors and plain values\n"
        f"  where  {path}\n"
        "  why    to read such a file is to run whatever code its writer put into it; it was not run\n"
        "  try    a .safetensors file of the same weights"
    )


def test_damaged_and_strange_files_are_named(tmp_path):
    """Truncated files, one of another kind and an empty directory: each a clear error."""
    torch.save(to_file_state(build(tiny())), tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(whole[: len(whole) // 2])
    save_file(to_file_state(build(tiny())), tmp_path / "b.safetensors")
    whole = (tmp_path / "b.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.txt").write_text("weights")
    (tmp_path / "d.pth").write_bytes(b"")
    (tmp_path / "e").mkdir()
    torch.save({"weight": torch.ones(3)}, tmp_path / "f.pth")
    (tmp_path / "g").mkdir()
    (tmp_path / "g/config.json").write_text("{")
    for name, index in {"h": "[]", "i": '{"weight_map": {"a": "../b.safetensors"}}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "gpt2"}')
        (tmp_path / name / "model.safetensors.index.json").write_text(index)
    for name, what in {
        "a.pth": "a.pth cannot be read",
        "b.safetensors": "b.safetensors cannot be read",
        "c.txt": "this file's name says nothing about what is in it",
        "d.pth": "d.pth cannot be read",
        "e": "there are no weights in this directory",
        "f.pth": "these are not the weights of our GPT",
        "g": "config.json cannot be read",
        "h": "model.safetensors.index.json cannot be read",
        "i": "the index names a file outside its directory: ../b.safetensors",
    }.items():
        with pytest.raises(CheckpointError) as error:
            load_initial(tmp_path / name, tiny())
        assert error.value.what == what
        assert error.value.where is not None


def test_a_changed_byte_in_a_checkpoint_is_named(tmp_path):
    """Weights that are not those whose sum training wrote down are refused."""
    run_with_checkpoint(tmp_path / "a", tiny())
    path = tmp_path / "a/checkpoints/step-00000010"
    content = bytearray((path / "model.safetensors").read_bytes())
    good = hashlib.sha256(content).hexdigest()
    (path / "meta.json").write_text(json.dumps({"step": 10, "files": {"model.safetensors": {"sha256": good}}}))
    load_initial(path, tiny())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        load_initial(path, tiny())
    assert str(error.value) == (
        "CheckpointError: the checkpoint step-00000010 is damaged: model.safetensors is not what was written "
        "(its sha256 differs)\n"
        f"  where  {path / 'model.safetensors'}\n"
        "  try    another checkpoint of the run, or a copy of this one"
    )


def test_heads_that_do_not_divide_the_weights_width(tmp_path):
    """config.json says no more than gpt2: its 12 heads are not those of weights 16 wide."""
    GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=8, vocab_size=70)).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(CheckpointError, match="12 heads do not divide the width of 16 that the weights have"):
        sources.read(tmp_path)
