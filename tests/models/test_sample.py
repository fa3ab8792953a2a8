"""ganeum sample: the texts of a run's model, printed as they come, and clear errors."""

import io
import json

import pytest
import torch
import typer
from made_run import run_with_checkpoint
from typer.testing import CliRunner

from ganeum.cli.export import command as export_command
from ganeum.cli.sample import Writer, command
from ganeum.config.schema import Model, Sample
from ganeum.data.tokenizer import Bytes, Characters
from ganeum.models.generate import generate

DEFAULTS = {"temperature": 0.9, "max_new_tokens": 12, "num_samples": 2, "prompt": "ab", "top_k": 3}


def call(command, *arguments: object):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def sample(*arguments: object):
    return call(command, *arguments, "--device", "cpu")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run called `a` that writes the letters a to f, and its best model."""
    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    torch.manual_seed(0)
    config = Model(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=6, tie_embeddings=False)
    tokenizer = Characters("abcdef", end_of_text=False)
    return run_with_checkpoint(tmp_path / "results/a", config, tokenizer, sample=DEFAULTS)


def expected(model, prompt: str, seed: int = 1337, **settings) -> list[str]:
    settings = {key: value for key, value in (DEFAULTS | settings).items() if key != "prompt"}
    ids = ["abcdef".index(letter) for letter in prompt]
    texts = generate(model, ids, generator=torch.Generator().manual_seed(seed), top_p=None, **settings)
    return [prompt + "".join("abcdef"[token] for token in text) for text in texts]


def test_the_runs_own_settings_are_the_defaults(run):
    """Without options the run's config says what to write."""
    one, two = expected(run, "ab")
    result = sample("a")
    assert result.exit_code == 0
    assert result.stdout == f"--- 1 ---\n{one}\n\n--- 2 ---\n{two}\n"
    assert result.stderr == ""


def test_options_come_before_the_runs_settings(run):
    """Every option is obeyed; one text alone is printed alone."""
    (text,) = expected(run, "cafe", seed=3, temperature=2.0, max_new_tokens=5, num_samples=1, top_k=None)
    options = "--prompt cafe --seed 3 --temperature 2 --max-new-tokens 5 --num-samples 1 --top-k 0 --top-p 1"
    assert sample("a", *options.split()).stdout == f"{text}\n"


def test_json(run, tmp_path):
    """--json prints the texts with all that they were made with."""
    answer = json.loads(sample("a", "--checkpoint", "best", "--json").stdout)
    one, two = expected(run, "ab")
    assert answer == {
        "weights": f"{tmp_path}/results/a/checkpoints/step-00000010",
        "step": 10,
        "settings": {**DEFAULTS, "top_p": None, "seed": 1337},
        "samples": [{"text": one, "new_tokens": 12}, {"text": two, "new_tokens": 12}],
    }


def test_every_way_to_name_the_weights(run, tmp_path):
    """A run's name, its directory, a checkpoint's, and an exported one all write the same text."""
    call(export_command, "a", "out")
    settings = ["--prompt", "abc", "--temperature", "0", "--num-samples", "1", "--max-new-tokens", "12"]
    (text,) = expected(run, "abc", temperature=0.0, num_samples=1)
    for name in ("a", "results/a", "results/a/checkpoints/step-00000010", "out", tmp_path / "out"):
        assert sample(name, *settings).stdout == f"{text}\n"
    assert sample("a", "--checkpoint", "latest", *settings).stdout != f"{text}\n"


def test_an_empty_prompt_is_the_start_of_a_text(tmp_path):
    """Without a prompt the model reads the end-of-text token, and what it writes is all there is."""
    config = Model(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=257)
    model = run_with_checkpoint(tmp_path / "b", config, Bytes())
    (ids,) = generate(model, [256], max_new_tokens=9, temperature=0.0, end_of_text=256)
    options = ("--prompt", "", "--temperature", "0", "--max-new-tokens", "9")
    assert sample(tmp_path / "b", *options).stdout == bytes(ids).decode("utf-8", "replace") + "\n"


def test_a_prompt_from_a_file_longer_than_the_context(run, tmp_path):
    """A prompt may come from a file; if it is longer than the context, a note says what is read."""
    (tmp_path / "prompt.txt").write_text("abcabcabcabc")
    result = sample("a", "--prompt-file", "prompt.txt", "--num-samples", "1", "--temperature", "0")
    assert result.stdout.startswith("abcabcabcabc")
    assert result.stderr == "the prompt has 12 tokens: the model reads its last 8\n"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["a", "--prompt", "abz"],
            "DataError: the vocabulary of 6 characters has no 'z'\n"
            "  where  character 3 of the text\n"
            "  why    it never occurs in the corpus that the vocabulary was taken from\n"
            "  try    other words, or data prepared with --tokenizer bytes or bpe, which can say anything",
        ),
        (
            ["a", "--prompt", "a", "--prompt-file", "p"],
            "ConfigError: there are two prompts, --prompt and --prompt-file\n  try    one of them",
        ),
        (
            ["a", "--prompt-file", "nowhere"],
            "DataError: the prompt cannot be read: no such file or directory\n  where  nowhere",
        ),
        (
            ["a", "--prompt-file", "latin"],
            "DataError: the prompt is not UTF-8\n"
            "  where  latin\n"
            "  why    'utf-8' codec can't decode byte 0xe9 in position 1: unexpected end of data",
        ),
        (
            ["a.pth"],
            "CheckpointError: these weights have no tokenizer, so nothing can be read or written with them\n"
            "  where  a.pth\n"
            "  try    the run, or `ganeum export --format hf` of it",
        ),
        (
            ["b"],
            "RunError: there is no run b\n  where  {tmp_path}/results\n  try    `ganeum runs` lists the runs there are",
        ),
        (
            ["empty"],
            "CheckpointError: there are no weights in this directory\n"
            "  where  empty\n"
            "  why    it has no config.yaml (a run), model.safetensors, config.json (Hugging Face) "
            "or ckpt.pt (nanoGPT)",
        ),
        (
            ["fresh"],
            "CheckpointError: the run fresh has no checkpoint yet\n"
            "  where  {tmp_path}/results/fresh/checkpoints\n"
            "  try    train it first",
        ),
    ],
)
def test_what_cannot_be_sampled(run, tmp_path, arguments, error):
    """Whatever is missing or wrong is said in full, with what to try."""
    (tmp_path / "latin").write_bytes("né".encode("latin-1"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "results/fresh").mkdir()
    (tmp_path / "results/fresh/config.yaml").write_text("seed: 1\n")
    call(export_command, "a", "--format", "pth")
    assert str(sample(*arguments).exception) == error.format(tmp_path=tmp_path)


def test_texts_come_in_order_while_they_grow():
    """The first unfinished text is printed token by token; the next begins when it ends, with what it has by then."""
    out = io.StringIO()
    writer = Writer(Bytes(), Sample(num_samples=2, prompt="> "), out)
    assert out.getvalue() == "--- 1 ---\n> "
    writer(0, ord("a"))
    writer(1, ord("x"))
    assert out.getvalue() == "--- 1 ---\n> a"
    writer(1, ord("y"))
    writer(0, None)
    assert out.getvalue() == "--- 1 ---\n> a\n\n--- 2 ---\n> xy"
    writer(1, None)
    assert out.getvalue() == "--- 1 ---\n> a\n\n--- 2 ---\n> xy\n"


def test_a_character_waits_for_its_last_byte():
    """A token that is a part of a character is printed with the rest of it; at the end, whatever is there is."""
    out = io.StringIO()
    writer = Writer(Bytes(), Sample(num_samples=1), out)
    for byte in "é🙂".encode():
        writer(0, byte)
        assert "\ufffd" not in out.getvalue()
    assert out.getvalue() == "é🙂"
    writer(0, 0xF0)
    writer(0, None)
    assert out.getvalue() == "é🙂\ufffd\n"


def test_seeds_and_temperatures_at_their_ends(run):
    """A seed that torch cannot take is refused; a temperature of almost 0 is 0."""
    assert sample("a", "--seed", "99999999999999999999999").exit_code == 2
    assert sample("a", "--temperature", "1e-300").stdout == sample("a", "--temperature", "0").stdout != ""
