"""ganeum export: transformers computes our logits and writes our text from the directory; nothing is half-written."""

import json

import pytest
import torch
import typer
from made_run import run_with_checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from ganeum.cli.export import command
from ganeum.config.schema import Model
from ganeum.data.bpe import BPE
from ganeum.data.tokenizer import Bytes, Characters, Tokenizer, load_tokenizer
from ganeum.errors import CheckpointError, RunError
from ganeum.models.generate import generate
from ganeum.models.weights import load_initial, restore, to_file_state

TEXT = "def f(x):\n    return 'é한🙂 12 345' + x  \t# don't , do n't .\r\n\n"
TOKENIZERS = {
    "bpe": lambda: BPE.train([TEXT * 5 + "return self.x or self.y\n" * 9], 300),
    "bytes": Bytes,
    "characters": lambda: Characters("".join(sorted(set(TEXT)))),
    "characters of nanoGPT": lambda: Characters("".join(sorted(set(TEXT))), end_of_text=False),
}


def config_for(tokenizer: Tokenizer, **keys) -> Model:
    return Model(
        **{"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 64, "vocab_size": tokenizer.vocab_size, **keys}
    )


def export(*arguments: object):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)


def stirred(model: torch.nn.Module) -> torch.nn.Module:
    """Weights far from their start, so that every part of the model matters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run called `a` with a BPE tokenizer, and its best model."""
    from safetensors.torch import save_file

    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    tokenizer = TOKENIZERS["bpe"]()
    config = config_for(tokenizer, bias=True, qkv_bias=False, tie_embeddings=False)
    model = stirred(run_with_checkpoint(tmp_path / "results/a", config, tokenizer))
    save_file(to_file_state(model), tmp_path / "results/a/checkpoints/step-00000010/model.safetensors")
    return tmp_path / "results/a", model


def test_transformers_writes_our_text(run):
    """From the exported directory transformers gives our logits, our token ids and, greedily, our text."""
    path, ours = run
    assert export("a").exit_code == 0
    theirs, tokenizer = AutoModelForCausalLM.from_pretrained("a-hf"), AutoTokenizer.from_pretrained("a-hf")
    assert type(theirs).__name__ == "GPT2LMHeadModel"
    encoded = tokenizer("return self", return_tensors="pt")
    mine = load_tokenizer(path / "tokenizer")
    ids = mine.encode("return self")
    assert encoded["input_ids"].tolist() == [ids]
    with torch.no_grad():
        expected = theirs(**encoded).logits
        torch.testing.assert_close(ours(encoded["input_ids"]), expected, rtol=1e-5, atol=1e-4)
    tokens = theirs.generate(**encoded, max_new_tokens=40, do_sample=False)[0]
    assert len(tokens) > len(ids) + 5
    written = generate(ours, ids, max_new_tokens=40, temperature=0.0, end_of_text=mine.end_of_text)[0]
    assert "return self" + mine.decode(written) == tokenizer.decode(tokens, skip_special_tokens=True)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_every_tokenizer_goes_along(tmp_path, kind):
    """transformers' AutoTokenizer gives our ids for every kind, decodes them back, and knows where a text ends."""
    ours = TOKENIZERS[kind]()
    run_with_checkpoint(tmp_path / "a", config_for(ours), ours)
    export(tmp_path / "a", tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs(TEXT)["input_ids"] == ours.encode(TEXT)
    assert theirs.decode(ours.encode(TEXT)) == TEXT
    assert theirs.eos_token_id == ours.end_of_text
    assert len(theirs) == ours.vocab_size
    assert theirs.model_max_length == 64
    assert load_tokenizer(tmp_path / "out").encode(TEXT) == ours.encode(TEXT)
    assert json.loads((tmp_path / "out/config.json").read_text())["eos_token_id"] == ours.end_of_text


def test_an_exported_directory_comes_back(run):
    """What was exported restores the same model, and starts another run with it."""
    _, ours = run
    export("a", "out")
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(restore("out")(tokens), ours(tokens))
    state = load_initial("out", ours.config)
    assert state.keys() == to_file_state(ours).keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in to_file_state(ours).items())


def test_pth(run):
    """The .pth is name → tensor and nothing else, without padding, and starts another run."""
    _, ours = run
    assert export("a", "--format", "pth").output == "results/a/checkpoints/step-00000010 → a.pth\n".replace(
        "results", str(run[0].parent)
    )
    state = torch.load("a.pth", weights_only=True)
    assert all(torch.equal(state[name], tensor) for name, tensor in to_file_state(ours).items())
    assert (
        sum(tensor.numel() * 4 for tensor in state.values()) + 20_000 > (run[0].parent.parent / "a.pth").stat().st_size
    )
    assert load_initial("a.pth", ours.config).keys() == state.keys()


def test_nanogpt(run, tmp_path):
    """ckpt.pt holds what nanoGPT reads; a model that it cannot compute is refused, and nothing is written."""
    result = export("a", "--format", "nanogpt")
    assert str(result.exception) == (
        "CheckpointError: nanoGPT cannot compute this model: its tie_embeddings is always true, "
        "its activation is always gelu\n"
        "  try    ganeum export --format hf"
    )
    assert not (tmp_path / "a-nanogpt").exists()
    tokenizer = Characters("abc")
    ours = run_with_checkpoint(tmp_path / "b", config_for(tokenizer, activation="gelu"), tokenizer)
    export(tmp_path / "b", "--format", "nanogpt")
    assert torch.load("b-nanogpt/ckpt.pt", weights_only=True)["iter_num"] == 10
    tokens = torch.arange(4)[None]
    with torch.no_grad():
        assert torch.equal(restore("b-nanogpt")(tokens), ours(tokens))


def test_the_checkpoint_that_was_asked_for(run):
    """`--checkpoint` takes latest, a step, or a directory; another one is refused with those there are."""
    for which, name in [("best", 10), ("latest", 20), ("20", 20), (str(run[0] / "checkpoints/step-00000020"), 20)]:
        answer = json.loads(export("a", "--checkpoint", which, "--overwrite", "--json").output)
        assert answer == {
            "from": f"{run[0]}/checkpoints/step-000000{name}",
            "format": "hf",
            "written": "a-hf",
        }
    assert str(export("a", "--checkpoint", "15", "--overwrite").exception) == (
        "CheckpointError: the run a has no checkpoint 15\n"
        f"  where  {run[0]}/checkpoints\n"
        "  try    best, latest, or one of the steps 10, 20"
    )


def test_what_is_there_is_not_overwritten(run, tmp_path):
    """An existing export is replaced only with --overwrite, and what is no export never."""
    export("a", "out")
    (tmp_path / "out/note").write_text("mine")
    result = export("a", "out")
    assert isinstance(result.exception, RunError)
    assert str(result.exception) == (
        "RunError: out is there already\n  try    another place, or --overwrite to replace an earlier export"
    )
    assert (tmp_path / "out/note").exists()
    assert export("a", "out", "--overwrite").exit_code == 0
    assert not (tmp_path / "out/note").exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/1.jpg").write_text("dear")
    for format in ("hf", "pth", "nanogpt"):
        assert export("a", "photos", "--overwrite", "--format", format).exit_code != 0
    assert (tmp_path / "photos/1.jpg").read_text() == "dear"


def test_others_may_read_it(run, tmp_path):
    """The weights have the same permissions as the files beside them."""
    export("a", "out")
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1


def test_a_failure_leaves_nothing(run, tmp_path, monkeypatch):
    """When writing fails, neither a part of the export nor its temporary directory stays."""
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ganeum.models.export.save_file", full)
    assert str(export("a", "out").exception) == (
        "RunError: the export cannot be written\n"
        "  where  out\n"
        "  why    [Errno 28] No space left on device\n"
        "  try    another place, or free space"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_plain_state_dict_is_not_enough(run):
    """From a .pth alone no model can be built: how many heads it has is not in it."""
    export("a", "--format", "pth")
    with pytest.raises(CheckpointError) as error:
        restore("a.pth")
    assert str(error.value) == (
        "CheckpointError: a state dict does not tell the model's n_head, norm_eps, activation\n"
        "  where  a.pth\n"
        "  try    the run or the exported directory that it came from"
    )


def test_a_name_that_ends_in_pth_is_a_file(run, tmp_path):
    """Without --format the name says it."""
    assert export("a", "out.pth").exit_code == 0
    assert (tmp_path / "out.pth").is_file()
