"""Every mistake in a config, by the full text that a user reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganeum.config import load, load_stored
from ganeum.errors import GaneumError

OVER = "train: {max_iters: 3}\n"

FILES = {
    "train:\n  batchsize: 64\n  max_iters: 3\n": """\
ConfigError: there is no key train.batchsize
  where  a.yaml, line 2
  try    train.batch_size""",
    "grad_clip: 3\n" + OVER: """\
ConfigError: there is no key grad_clip
  where  a.yaml, line 1
  try    train.grad_clip""",
    OVER + "zzz: 1\n": """\
ConfigError: there is no key zzz
  where  a.yaml, line 2""",
    # nanoGPT's names: what ours are called
    "eval_iters: 200\nmin_lr: 1e-4\ndataset: x\ntrain:\n  max_iters: 3\n  dtype: float16\n": """\
ConfigError: there is no key eval_iters
  where  a.yaml, line 1
  try    train.eval_tokens, which counts tokens: eval_iters × batch_size × block_size

ConfigError: there is no key min_lr
  where  a.yaml, line 2
  try    train.min_learning_rate

ConfigError: there is no key dataset
  where  a.yaml, line 3
  try    data.directory, or data.train for a model of model.source

ConfigError: there is no key train.dtype
  where  a.yaml, line 6
  try    train.precision""",
    # values of the wrong kind, all at once, in the order of the file
    """\
model:
  n_layer: -1
  dropout: 1.0
train:
  batch_size: true
  precision: fp61
  compile: 1
  max_iters: '12'
  tokens: 5,000
  eval_tokens: 1.5
sample:
  top_k: None
  temperature: .inf
seed: [1, 2]
model.n_head:
""": """\
ConfigError: model.n_layer must be a whole number of at least 1, but it is -1
  where  a.yaml, line 2

ConfigError: model.dropout must be a number of at least 0 and below 1, or null, but it is 1.0
  where  a.yaml, line 3

ConfigError: train.batch_size must be a whole number of at least 1, but it is true
  where  a.yaml, line 5
  why    true and false are no numbers here

ConfigError: train.precision must be one of auto, fp32, tf32, bf16 or fp16, but it is the text 'fp61'
  where  a.yaml, line 6
  try    train.precision: fp16

ConfigError: train.compile must be true or false, or auto, but it is 1
  where  a.yaml, line 7
  try    train.compile: true

ConfigError: train.max_iters must be a whole number of at least 1, or null, but it is the text '12'
  where  a.yaml, line 8
  why    what stands in quotes is text, and text is never read as a number
  try    train.max_iters: 12

ConfigError: train.tokens must be a number above 0, or null, but it is the text '5,000'
  where  a.yaml, line 9
  try    train.tokens: 5000

ConfigError: train.eval_tokens must be a whole number of at least 1, or all, but it is 1.5
  where  a.yaml, line 10

ConfigError: sample.top_k must be a whole number of at least 1, or null, but it is the text 'None'
  where  a.yaml, line 12
  try    sample.top_k: null

ConfigError: sample.temperature must be a number of at least 0, but it is .inf
  where  a.yaml, line 13

ConfigError: seed must be a whole number from 0 to 4,294,967,295, but it is a list
  where  a.yaml, line 14

ConfigError: model.n_head must be a whole number of at least 1, but it is empty (null)
  where  a.yaml, line 15""",
    "model: 5\n" + OVER: """\
ConfigError: model holds keys, so it cannot be 5
  where  a.yaml, line 1
  try    model:
           style: gpt2""",
    # values that contradict each other
    "train:\n  max_iters: 3\n  batch_size: 480\n\n  micro_batch_size: 7\n": """\
ConfigError: train.batch_size must be a multiple of train.micro_batch_size, but 480 is not a multiple of 7
  where  a.yaml, lines 3 and 5
  why    an optimizer step cannot end inside a micro-batch
  try    train.micro_batch_size: 6 (80 accumulation steps) or 8 (60)""",
    "train:\n  max_iters: 3\n  micro_batch_size: 100\n": """\
ConfigError: train.batch_size must be a multiple of train.micro_batch_size, but 64 is not a multiple of 100
  where  a.yaml, line 3
  why    an optimizer step cannot end inside a micro-batch
  try    train.micro_batch_size: 64 (1 accumulation step)""",
    "model:\n  n_embd: 100\n  n_head: 7\n" + OVER: """\
ConfigError: model.n_embd must be a multiple of model.n_head, but 100 is not a multiple of 7
  where  a.yaml, lines 2 and 3
  why    each head takes an equal share of the width
  try    model.n_head: 5 or 10, or model.n_embd: 105""",
    "train:\n  max_iters: 3\n  epochs: 2\n  hours: 1\n": """\
ConfigError: the training has 3 lengths: train.max_iters, train.epochs, train.hours
  where  a.yaml, lines 2, 3 and 4
  why    only one of them can say when it ends
  try    keep train.max_iters and remove the others""",
    "seed: 3\n": """\
ConfigError: nothing says how long to train
  where  a.yaml
  why    one of train.max_iters, train.epochs, train.tokens, train.hours must be set
  try    train.max_iters: 5000""",
    "train:\n  max_iters: 3\n  learning_rate: 1e-4\n  min_learning_rate: 1e-3\n": """\
ConfigError: train.min_learning_rate is 0.001, above train.learning_rate, 0.0001
  where  a.yaml, lines 3 and 4
  why    the schedule goes down from the one to the other
  try    train.min_learning_rate: auto""",
    "train: {max_iters: 3}\nmodel:\n  n_head: 6\n  n_kv_head: 4\n  style: modern\n  head_dim: 7\n  bias: true\n": """\
ConfigError: model.n_head must be a multiple of model.n_kv_head, but 6 is not a multiple of 4
  where  a.yaml, lines 3 and 4
  why    each head of keys and values serves as many queries as the others
  try    model.n_kv_head: 3 or 6

ConfigError: the modern style has no model.bias
  where  a.yaml, lines 5 and 7
  why    it belongs to model.style: gpt2
  try    model.style: gpt2, or the config without model.bias

ConfigError: model.head_dim must be even, but it is 7
  where  a.yaml, line 6
  why    rotary positions turn its numbers pair by pair
  try    model.head_dim: 8""",
    "train: {max_iters: 3}\nmodel: {style: modern, n_embd: 18}\n": """\
ConfigError: a head must have an even width, but model.n_embd / model.n_head is 3
  where  a.yaml, line 2
  why    rotary positions turn its numbers pair by pair
  try    model.head_dim: 4""",
    "train: {max_iters: 3}\nmodel:\n  n_kv_head: 2\n  rope_theta: 1e6\n": """\
ConfigError: the gpt2 style has no model.n_kv_head
  where  a.yaml, line 3
  why    it belongs to model.style: modern
  try    model.style: modern, or the config without model.n_kv_head

ConfigError: the gpt2 style has no model.rope_theta
  where  a.yaml, line 4
  why    it belongs to model.style: modern
  try    model.style: modern, or the config without model.rope_theta""",
    "train:\n  max_iters: 3\n  lora:\n    rank: 8\n": """\
ConfigError: train.lora.rank is set, and train.init_from is not
  where  a.yaml, line 4
  why    only the adapters are trained, and under them lie random weights: nothing useful can be learnt
  try    train.init_from: a run, a checkpoint or an exported directory; or train.lora.rank: null""",
    # what is no YAML, or no config
    "train:\n  max_iters: 3\nseed: 1\nseed: 2\n": """\
ConfigError: seed stands twice, first in line 3
  where  a.yaml, line 4
  why    only one of the two values could count
  try    remove one of them""",
    "train.name: x\ntrain:\n  max_iters: 3\n  max_iters: 4\ntrain.max_iters: 5\n": """\
ConfigError: there is no key train.name
  where  a.yaml, line 1
  try    name

ConfigError: train.max_iters stands twice, first in line 3
  where  a.yaml, line 4
  why    only one of the two values could count
  try    remove one of them

ConfigError: train.max_iters stands twice, first in line 3
  where  a.yaml, line 5
  why    only one of the two values could count
  try    remove one of them""",
    "train:\n\tmax_iters: 3\n": """\
ConfigError: the file is not valid YAML: a tab where spaces belong
  where  a.yaml, line 2
  why    YAML indents with spaces only
  try    two spaces for each level""",
    "train:\n  max_iters: 3\n model: 3\n": """\
ConfigError: the file is not valid YAML: this line is indented unlike those above it
  where  a.yaml, line 3""",
    "train:\n  max_iters: 3\n  bare\n": """\
ConfigError: the file is not valid YAML: a key with no `: ` after it
  where  a.yaml, line 3""",
    "name: a: b\n": """\
ConfigError: the file is not valid YAML: a second `: ` in one line, or a line indented too far
  where  a.yaml, line 1""",
    "name: 'abc\ntrain:\n  max_iters: 3\n": """\
ConfigError: the file is not valid YAML: a quote is opened here and never closed
  where  a.yaml, line 1""",
    "seed: 1\n---\nseed: 2\n": """\
ConfigError: the file is not valid YAML: a second document begins here; a config is one
  where  a.yaml, line 2""",
    "": """\
ConfigError: the config is empty
  where  a.yaml
  try    model:
           n_layer: 6""",
    "- 1\n": """\
ConfigError: a config must hold keys with values, but this is a list
  where  a.yaml, line 1
  try    model:
           n_layer: 6""",
    "[" * 3000: """\
ConfigError: the file nests too deeply to be a config
  where  a.yaml""",
    "? [a]\n: 1\ntrain.max_iters: 3": """\
ConfigError: a key must be a word
  where  a.yaml, line 1""",
    "name: a\x07b": """\
ConfigError: the file is not text: it holds the control character 0x07
  where  a.yaml""",
    # names and bases
    "name: a/b\n" + OVER: """\
ConfigError: name cannot be 'a/b': '/' cannot stand in a directory's name
  where  a.yaml, line 1
  why    it becomes the run's directory under results/
  try    name: a_b""",
    "seed: 1\nbase: exp_v100/tset_run.yaml\n": """\
ConfigError: there is no config exp_v100/tset_run.yaml
  where  a.yaml, line 2
  try    exp_v100/test_run.yaml""",
    "base: [a]\n" + OVER: """\
ConfigError: base must be a path, but it is a list
  where  a.yaml, line 1""",
    "base: b.yaml\n": """\
ConfigError: the `base:` of these files runs in a circle: a.yaml → b.yaml → a.yaml
  where  b.yaml, line 1
  try    take one of the `base:` lines out""",
}

OVERRIDES = {
    "interval=3": """\
ConfigError: interval could be sample.interval or log.interval
  where  the command line: interval=3
  try    sample.interval=3 or log.interval=3""",
    "num_steps=3": """\
ConfigError: there is no key num_steps
  where  the command line: num_steps=3
  try    train.max_iters=3""",
    "oops": """\
ConfigError: an override must read key=value
  where  the command line: oops
  try    train.max_iters=10""",
    "train=3": """\
ConfigError: train holds keys, so it cannot be 3
  where  the command line: train=3
  try    train.batch_size=64""",
    "max_iters=many": """\
ConfigError: train.max_iters must be a whole number of at least 1, or null, but it is the text 'many'
  where  the command line: max_iters=many""",
    "micro_batch_size=7": """\
ConfigError: train.batch_size must be a multiple of train.micro_batch_size, but 64 is not a multiple of 7
  where  the command line: micro_batch_size=7
  why    an optimizer step cannot end inside a micro-batch
  try    train.micro_batch_size: 4 (16 accumulation steps) or 8 (8)""",
    "n_layer=1000000000": """\
ConfigError: model.n_layer must be at most 10,000, but it is 1e+09
  where  the command line: n_layer=1000000000
  why    no network and no run has as many""",
    "batch_size=1000000000000000003": """\
ConfigError: train.batch_size must be at most 1,000,000,000, but it is 1e+18
  where  the command line: batch_size=1000000000000000003
  why    no network and no run has as many""",
    "tokens=1e300": """\
ConfigError: train.tokens must be at most 1,000,000,000,000,000,000, but it is 1e+300
  where  the command line: tokens=1e300
  why    no network and no run has as many""",
    "base=x": """\
ConfigError: base belongs into the file
  where  the command line: base=x
  why    it says what the file inherits from""",
    "name=..": """\
ConfigError: name cannot be '..': a directory of runs cannot begin with '.'
  where  the command line: name=..
  why    it becomes the run's directory under results/
  try    name=my_run""",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(path: str, overrides: list[str] | None = None) -> str:
    with pytest.raises(GaneumError) as caught:
        load(path, overrides or [])
    return str(caught.value)


@pytest.mark.parametrize(("content", "text"), FILES.items(), ids=range(len(FILES)))
def test_a_mistake_in_a_file_is_explained_with_its_line(content: str, text: str) -> None:
    """What is wrong, where, why and what to write instead: all mistakes of a file at once."""
    Path("exp_v100").mkdir()
    Path("exp_v100/test_run.yaml").write_text(OVER)
    Path("b.yaml").write_text("base: a.yaml")
    Path("a.yaml").write_text(content)
    assert text == said("a.yaml")


@pytest.mark.parametrize(("override", "text"), OVERRIDES.items(), ids=list(OVERRIDES))
def test_a_mistake_on_the_command_line_is_explained_with_its_word(override: str, text: str) -> None:
    """An override's error repeats the override."""
    Path("a.yaml").write_text(OVER)
    assert text == said("a.yaml", [override])


def test_mistakes_in_a_base_are_reported_with_those_above_it() -> None:
    """Each error names the file that it stands in, the base's too."""
    Path("a.yaml").write_text("base: b.yaml\nseed: x\n" + OVER)
    Path("b.yaml").write_text("\nmodell: 1\n")
    assert said("a.yaml") == (
        "ConfigError: seed must be a whole number from 0 to 4,294,967,295, but it is the text 'x'\n"
        "  where  a.yaml, line 2\n\n"
        "ConfigError: there is no key modell\n  where  b.yaml, line 2\n  try    model"
    )


def test_a_missing_file_is_told_with_the_nearest_one() -> None:
    """A misspelt path is answered with the config that has nearly that name; a directory with what it holds."""
    Path("configs/exp").mkdir(parents=True)
    Path("configs/exp/test_run.yaml").write_text(OVER)
    assert said("configs/tset_run.yaml") == (
        "ConfigError: there is no config configs/tset_run.yaml\n  try    configs/exp/test_run.yaml"
    )
    assert said("configs/exp") == (
        "ConfigError: configs/exp is a directory, not a config\n  try    configs/exp/test_run.yaml"
    )


def test_bytes_that_are_no_utf_8_are_named() -> None:
    """A file in another encoding is refused with the place of its first strange byte."""
    Path("a.yaml").write_bytes(b"name: caf\xe9\n")
    assert said("a.yaml") == (
        "ConfigError: a config must be UTF-8 text, but byte 9 (0xe9) is not\n"
        "  where  a.yaml\n  try    save the file as UTF-8 in your editor"
    )


def test_a_file_whose_own_name_is_no_directory_needs_another() -> None:
    """The run is called after the file; where that cannot be, it says so."""
    Path("con.yaml").write_text(OVER)
    assert said("con.yaml") == (
        "ConfigError: the run would be called 'con' after its file, but Windows keeps that name for a device\n"
        "  where  con.yaml\n  try    name: a_name_of_letters_and_digits"
    )
    assert "fine" == load("con.yaml", ["name=fine"]).name


def test_widths_are_free_where_the_head_s_own_is_given() -> None:
    """With head_dim, n_embd need be no multiple of n_head; a value that says nothing is no contradiction."""
    Path("a.yaml").write_text("train: {max_iters: 3}\nmodel: {style: modern, n_embd: 100, n_head: 6, head_dim: 16}")
    assert 100 == load("a.yaml", ["qkv_bias=false"]).model.n_embd


def test_a_stored_config_may_hold_a_length_and_its_steps() -> None:
    """`epochs` and the `max_iters` they came to stand together in a run's own config.yaml."""
    Path("a.yaml").write_text("train: {max_iters: 3, epochs: 2}")
    assert (3, 2.0) == (load_stored("a.yaml").train.max_iters, load_stored("a.yaml").train.epochs)
