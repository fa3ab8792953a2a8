"""Runs as what `ganeum generate` writes with: a GPT of ours, and a run that adopted a model."""

import json

import pytest
import torch
from made import model, tokenizer
from safetensors.torch import save_file
from test_generate_command import lines, refused, rows_file

from ganeum.config.schema import Model
from ganeum.data.tokenizer import Bytes
from ganeum.models.build import build
from ganeum.models.generate import generate as write
from ganeum.models.weights import to_file_state

TEXTS = ["the quick", "", "fox", "jumps over the lazy dog"]


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """The run `small` of a GPT with a context of 16 bytes, and its model."""
    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path / "results"))
    torch.manual_seed(0)
    config = Model(n_layer=1, n_head=2, n_embd=32, block_size=16, vocab_size=257, tie_embeddings=False)
    made, run = build(config).eval(), tmp_path / "results" / "small"
    checkpoint = run / "checkpoints" / "step-00000010"
    checkpoint.mkdir(parents=True)
    stored = {"model": config.model_dump(), "sample": {"max_new_tokens": 9, "at_once": 3}}
    (run / "config.yaml").write_text(json.dumps(stored))
    Bytes().save(run / "tokenizer")
    save_file(to_file_state(made), checkpoint / "model.safetensors")
    return made


def test_a_gpt_of_ours_writes_what_it_writes_alone(ours, tmp_path):
    """Each row's text is what the model's own generation writes behind that row's prompt alone, as long as `sample:`
    of the run says, an empty prompt being the token that ends a text."""
    source, out = rows_file(tmp_path, TEXTS), tmp_path / "out.jsonl"
    generate_as_it_is("small", source, out)
    prompts = [list(text.encode()) or [256] for text in TEXTS]
    texts = [write(ours, prompt, max_new_tokens=9, temperature=0.0, end_of_text=256)[0] for prompt in prompts]
    expected = [bytes(text).decode("utf-8", "replace") for text in texts]
    assert expected == [line["generated"] for line in lines(out)]
    settings = json.loads((tmp_path / "out.jsonl.settings.json").read_text())
    assert (9, 1, 16) == (settings["max_new_tokens"], settings["num_beams"], settings["max_length"])


def generate_as_it_is(run, source, out, *options):
    """The command without any option that generate() of the other tests sets."""
    from ganeum.cli import main

    with pytest.raises(SystemExit) as end:
        main(["generate", str(run), "--input", str(source), "--output", str(out), *options])
    assert end.value.code == 0


def test_a_gpt_of_ours_has_no_beams_and_no_prefix(ours, tmp_path, capsys):
    """What it cannot do is refused, with the way there is."""
    source, out = rows_file(tmp_path, TEXTS), tmp_path / "out.jsonl"
    assert refused(capsys, "small", "--input", source, "--output", out, "--num-beams", 2) == (
        "ConfigError: a GPT of ours writes without beams, but 2 are asked for\n"
        "  where  small\n"
        "  try    --num-beams 1; or `ganeum export --format hf`, without ganeum.json in what it wrote\n"
    )
    assert refused(capsys, "small", "--input", source, "--output", out, "--prefix", "say: ") == (
        "ConfigError: --prefix says nothing for a GPT of ours\n"
        "  where  small\n"
        "  why    it reads what it is given, as much as its context holds\n"
        "  try    no such option\n"
    )
    assert not out.exists()


def test_an_adopted_run_reads_what_it_was_trained_to_read(tmp_path, monkeypatch):
    """A run of a T5 needs its source no more: model, tokenizer, column, prefix and length are its own, and its texts
    those of the same model with the prefix in front of every text."""
    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path / "results"))
    theirs, run = model("t5"), tmp_path / "results" / "adopted"
    checkpoint = run / "checkpoints" / "step-00000010"
    checkpoint.mkdir(parents=True)
    stored = {
        "model": {"source": "gone/elsewhere"},
        "data": {"train": "gone.jsonl", "prefix": "name. ", "source_column": "question", "max_length": 12},
        "sample": {"max_new_tokens": 7, "num_beams": 3},
    }
    (run / "config.yaml").write_text(json.dumps(stored))
    tokenizer(ends=True).save_pretrained(run / "tokenizer")
    theirs.config.save_pretrained(run / "model")
    theirs.generation_config.save_pretrained(run / "model")
    save_file(dict(theirs.named_parameters()), checkpoint / "model.safetensors")
    theirs.save_pretrained(tmp_path / "exported")
    tokenizer(ends=True).save_pretrained(tmp_path / "exported")

    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps({"text": "no", "question": text}) + "\n" for text in TEXTS))
    prefixed = tmp_path / "prefixed.jsonl"
    prefixed.write_text("".join(json.dumps({"text": f"name. {text}"}) + "\n" for text in TEXTS))
    generate_as_it_is("adopted", source, tmp_path / "own.jsonl")
    how = ["--max-length", "12", "--num-beams", "3", "--max-new-tokens", "7"]
    generate_as_it_is(tmp_path / "exported", prefixed, tmp_path / "plain.jsonl", *how)
    assert [line["generated"] for line in lines(tmp_path / "plain.jsonl")] == [
        line["generated"] for line in lines(tmp_path / "own.jsonl")
    ]
