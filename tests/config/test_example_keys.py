"""Configs of a model of Hugging Face's and its examples: contradictions in full, and files that others wrote."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ganeum.config import Config, load, load_stored, reference, to_yaml
from ganeum.config.arguments import split_arguments
from ganeum.config.keys import keys, value_of
from ganeum.config.paths import read_from
from ganeum.config.source import scalar
from ganeum.errors import GaneumError

OVER = "model: {source: t5-small}\ndata: {train: a.jsonl}\ntrain: {max_iters: 5}\n"

# The sections of a guide to batch sizes for V100, in its own words; `deepspeed` and `fp16` are from further down there.
GUIDE = """\
# mT5 모델 설정
xlsum_mt5:
  training:
    per_device_train_batch_size: 1    # 안전
    per_device_eval_batch_size: 2     # 적절
    gradient_accumulation_steps: 4    # 효과적 배치=4
  inference:
    batch_size: 2                     # 안전

# eenzeenee 모델 설정
eenzeenee:
  training:
    per_device_train_batch_size: 4    # 현재 설정 (적절)
    per_device_eval_batch_size: 4     # 현재 설정 (적절)
    gradient_accumulation_steps: 2    # 효과적 배치=8
    fp16: true          # 메모리 50% 절약
    deepspeed: "ds_config.json"
  inference:
    batch_size: 8                     # 현재 설정 (적절)
"""

# What a report on a training that was 12 times too slow set in its training.yml.
TRAINING = """\
tokenization:
  max_length: 320      # 256 → 320
  padding: "max_length"  # 이미 수정됨
dataloader_num_workers: 8
dataloader_pin_memory: true           # 추가
dataloader_prefetch_factor: 2          # 추가
dataloader_persistent_workers: true    # 추가
seed: 42
"""

CONTRADICTIONS = {
    ("data: {train: a.jsonl, max_length: 320}\nmodel.fresh: true\ntrain: {max_iters: 5, batch_tokens: 4096}\n"): """\
ConfigError: model.fresh, data.train, data.max_length, train.batch_tokens say nothing without model.source
  where  a.yaml, lines 1, 2 and 3
  why    a GPT of ours learns from windows of the tokens in data.directory
  try    model.source: t5-base, say, or model.block_size for the length of a GPT of ours""",
    OVER + "model.n_layer: 12\n": """\
ConfigError: model.n_layer says nothing with model.source
  where  a.yaml, lines 1 and 4
  why    the config.json of that model says what it is made of
  try    the config without it, or without model.source""",
    OVER + "data.directory: data/text\ntrain.parametrization: mup\n": """\
ConfigError: data.directory says nothing with model.source
  where  a.yaml, lines 1 and 4
  why    such a model learns from the examples of data.train
  try    data.train: pairs.jsonl

ConfigError: train.parametrization: mup and model.source exclude each other
  where  a.yaml, lines 1 and 5
  why    mup is about weights that begin as a GPT of ours draws them
  try    train.parametrization: standard""",
    OVER + "train.batch_size: 64\ntrain.batch_tokens: 8192\n": """\
ConfigError: train.batch_size and train.batch_tokens are both given
  where  a.yaml, lines 4 and 5
  why    each says how much the model learns with at one step
  try    one of them""",
    OVER + "train.batch_tokens: 256\n": """\
ConfigError: train.batch_tokens is 256, below data.max_length, 512
  where  a.yaml, line 4
  why    one example may have more tokens than the whole batch
  try    train.batch_tokens: 8192""",
    OVER + "data.val: b.jsonl\ndata.val_share: 0.02\n": """\
ConfigError: data.val and data.val_share are both given
  where  a.yaml, lines 4 and 5
  why    a share is held out only where there are no held-out examples
  try    one of them""",
    OVER + "data.kind: texts\ndata.prefix: 'summarize: '\n": """\
ConfigError: data.prefix says nothing with data.kind: texts
  where  a.yaml, lines 4 and 5
  why    a single text has no source and no target
  try    data.kind: auto, or the config without it""",
    OVER + "model.fresh: true\ntrain.lora.rank: 8\n": """\
ConfigError: train.lora.rank is set, and model.fresh too
  where  a.yaml, lines 4 and 5
  why    only the adapters are trained, and under them lie random weights: nothing useful can be learnt
  try    model.fresh: false; or train.lora.rank: null""",
    OVER + "trust_remote_code: true\n": """\
ConfigError: trust_remote_code: true has no meaning here
  where  a.yaml, line 4
  why    code that came with a model runs only by `ganeum train … --trust-remote-code`, not by a file or a queue""",
    OVER + "packing: true\npad_to_max_length: true\n": """\
ConfigError: pad_to_max_length: true, packing: true have no meaning here
  where  a.yaml, lines 4 and 5
  why    packed rows need no padding
  try    data.batching: packed""",
    OVER + "data.train: []\n": """\
ConfigError: data.train stands twice, first in line 2
  where  a.yaml, line 4
  why    only one of the two values could count
  try    remove one of them""",
    "model: t5-small\ntrain: {max_iters: 5}\n": """\
ConfigError: model holds keys, so it cannot be the text 't5-small'
  where  a.yaml, line 1
  try    model:
           source: t5-small""",
    "model.source: t5-small\ndata: {train: [a.jsonl, 3]}\ntrain: {max_iters: 5}\n": """\
ConfigError: data.train must be text, or a list of them, or null, but it is a list
  where  a.yaml, line 2""",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(text: str, *overrides: str, section: str | None = None) -> Config:
    Path("a.yaml").write_text(text, encoding="utf-8")
    return load("a.yaml", overrides, section=section)


@pytest.mark.parametrize(("content", "text"), CONTRADICTIONS.items(), ids=range(len(CONTRADICTIONS)))
def test_a_contradiction_is_explained_with_its_lines(content: str, text: str) -> None:
    """What exclude each other, where both stand, why, and what to write instead."""
    with pytest.raises(GaneumError) as caught:
        loaded(content)
    assert text == str(caught.value)


def test_a_file_with_every_default_may_be_the_base() -> None:
    """base.yaml says every key of a GPT at its default; a model on top of it is no contradiction."""
    Path("base.yaml").write_text(to_yaml(Config()), encoding="utf-8")
    config = loaded("base: base.yaml\n" + OVER + "train.batch_tokens: 8192\n")
    assert ("t5-small", 8192) == (config.model.source, config.train.batch_tokens)


def test_several_files_are_a_list_in_yaml_and_in_brackets_on_a_command_line() -> None:
    """`data.train: [a, b]` is the same in a file, as an override, and in a run's stored config."""
    config = loaded("model.source: x\ntrain.max_iters: 1\ndata:\n  train:\n    - a.jsonl\n    - b c.csv\n")
    assert ("a.jsonl", "b c.csv") == config.data.train
    assert config.data == loaded("model.source: x\ntrain.max_iters: 1\n", "data.train=[a.jsonl, b c.csv]").data
    Path("config.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert config == load_stored("config.yaml")


def test_a_prefix_keeps_its_blank_on_a_command_line() -> None:
    """T5's `summarize: ` ends in a blank, which the shell's quotes protect."""
    assert "summarize: " == loaded(OVER, "data.prefix=summarize: ").data.prefix
    assert "summarize: " == loaded(OVER, "source_prefix=summarize: ").data.prefix
    assert "translate: " == loaded(OVER + "source_prefix: 'translate: '\n").data.prefix


@pytest.mark.parametrize(
    ("section", "batch", "at_once", "evaluated", "written"), [("xlsum_mt5", 4, 1, 2, 2), ("eenzeenee", 8, 4, 4, 8)]
)
def test_a_guide_s_sections_load_as_they_stand(
    section: str, batch: int, at_once: int, evaluated: int, written: int
) -> None:
    """The model and the data come by override; the effective batch is what the guide's comments say."""
    Path("ds_config.json").write_text('{"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}')
    words = ["--max_steps", "10", "--save_steps", "1000", "model.source=google/mt5-large", "data.train=news.jsonl"]
    config = loaded(GUIDE, *split_arguments(words)[1], section=section)
    assert (batch, at_once, evaluated, written) == (
        config.train.batch_size,
        config.train.micro_batch_size,
        config.train.eval_batch_size,
        config.sample.at_once,
    )
    assert (10, 1000, "google/mt5-large", "news.jsonl") == (
        config.train.max_iters,
        config.train.checkpoint_interval,
        config.model.source,
        config.data.train,
    )
    assert f"a-{section}" == config.name
    assert (section == "eenzeenee") == config.train.optimizer_offload


def test_a_section_without_a_model_says_what_is_taken() -> None:
    """A guide leaves the model to its script; nobody plans a GPT of ours in its place without being told."""
    said: list[str] = []
    Path("a.yaml").write_text(GUIDE, encoding="utf-8")
    load("a.yaml", ["max_steps=10"], section="xlsum_mt5", say=said.append)
    assert said[0].splitlines()[-1] == (
        "xlsum_mt5 names no model and no data: this is a GPT on data/tinystories, the default; "
        "model_name_or_path and train_file name others"
    )
    load("a.yaml", ["max_steps=10", "model_name_or_path=x", "train_file=y"], section="xlsum_mt5", say=said.append)
    assert "names no model" not in said[1]


def test_the_batch_that_fits_is_found_on_demand() -> None:
    """auto_find_batch_size leaves what is learnt with, and frees what is computed at once."""
    config = loaded(GUIDE, "auto_find_batch_size=true", "max_steps=1", "model.source=x", section="xlsum_mt5")
    assert (4, "auto") == (config.train.batch_size, config.train.micro_batch_size)


@pytest.mark.parametrize("nested", [False, True])
def test_a_training_yml_says_length_padding_and_seed(nested: bool) -> None:
    """Its keys at the top or below `training:`; what feeds a DataLoader is taken and says nothing."""
    text = "training:\n" + "".join(f"  {line}\n" for line in TRAINING.splitlines()) if nested else TRAINING
    said: list[str] = []
    Path("training.yml").write_text(text, encoding="utf-8")
    config = load("training.yml", ["model.source=x", "num_train_epochs=1"], say=said.append)
    assert (320, "fixed", 42) == (config.data.max_length, config.data.batching, config.seed)
    assert "dataloader_prefetch_factor: 2, dataloader_persistent_workers: true" in said[0].replace("\n    ", " ")


# The arguments of examples/pytorch/{summarization,translation,language-modeling} of transformers, with values that a
# user would give, and what they come to; a value that is None is what the script has by default, and says nothing.
SCRIPTS: dict[str, tuple[str, dict[str, object]]] = {
    "model_name_or_path": ("google/mt5-small", {"model.source": "google/mt5-small", "train.learning_rate": 1e-4}),
    "tokenizer_name": ("my/tokenizer", {"data.tokenizer": "my/tokenizer"}),
    "dataset_name": ("xsum", {"data.train": "xsum"}),
    "train_file": ("a.json", {"data.train": "a.json"}),
    "validation_file": ("b.json", {"data.val": "b.json"}),
    "max_source_length": ("1024", {"data.max_length": 1024}),
    "max_target_length": ("64", {"data.max_target_length": 64}),
    "val_max_target_length": ("60", {"sample.max_new_tokens": 60}),
    "generation_max_length": ("60", {"sample.max_new_tokens": 60}),
    "num_beams": ("4", {"sample.num_beams": 4}),
    "generation_num_beams": ("4", {"sample.num_beams": 4}),
    "source_prefix": ("'summarize: '", {"data.prefix": "summarize: "}),
    "pad_to_max_length": ("true", {"data.batching": "fixed"}),
    "group_by_length": ("true", {"data.batching": "buckets"}),
    "packing": ("true", {"data.batching": "packed"}),
    "text_column": ("body", {"data.text_column": "body"}),
    "summary_column": ("title", {"data.target_column": "title"}),
    "validation_split_percentage": ("5", {"data.val_share": 0.05}),
    "predict_with_generate": ("true", {}),
    "ignore_pad_token_for_loss": ("true", {}),
    "overwrite_cache": ("true", {}),
    "preprocessing_num_workers": ("8", {}),
    "use_fast_tokenizer": ("true", {}),
    "model_revision": ("main", {}),
    "lora_r": ("8", {"train.lora.rank": 8}),
    "max_train_samples": ("1000", {"data.max_examples": 1000}),
}
NOTHING = """config_name cache_dir token trust_remote_code resize_position_embeddings lang dataset_config_name test_file
    max_train_samples max_eval_samples max_predict_samples forced_bos_token source_lang target_lang streaming
    keep_linebreaks config_overrides"""


@pytest.mark.parametrize(("name", "value", "became"), [(name, *said) for name, said in SCRIPTS.items()])
def test_a_script_s_argument_becomes_ours(name: str, value: str, became: dict[str, object]) -> None:
    """In a file and on a command line, and null says nothing."""
    base = "model.source: x\ntrain.max_iters: 5\n" if name != "model_name_or_path" else "train.max_iters: 5\n"
    before = loaded(base)
    assert before == loaded(base + f"{name}: null\n")
    in_file, on_line = loaded(base + f"{name}: {value}\n"), loaded(base, *split_arguments([f"--{name}", value])[1])
    assert in_file == on_line
    changed = {key: value_of(in_file, key) for key in keys() if value_of(in_file, key) != value_of(before, key)}
    assert {key: want for key, want in became.items() if want != value_of(before, key)} == changed


@pytest.mark.parametrize("name", NOTHING.split())
def test_a_script_s_argument_that_means_nothing_may_be_null(name: str) -> None:
    """All of a script's arguments, dumped with their defaults, load."""
    assert loaded(OVER) == loaded(OVER + f"{name}: null\n")


def test_the_text_s_column_is_the_source_s_beside_a_summary_s() -> None:
    """As run_summarization.py has it; alone it is that of single texts."""
    for config in (
        loaded(OVER + "text_column: article\nsummary_column: highlights\n"),
        loaded(OVER, "text_column=article", "summary_column=highlights"),
        loaded(OVER + "summary_column: highlights\n", "text_column=article"),
    ):
        assert ("article", "highlights", "text") == (
            config.data.source_column,
            config.data.target_column,
            config.data.text_column,
        )
    assert "article" == loaded(OVER, "text_column=article").data.text_column


@pytest.mark.parametrize(
    ("said", "became"),
    [
        ("max_length", "fixed"),
        ("longest", "padded"),
        ("true", "padded"),
        ("false", "auto"),
        ("do_not_pad", "auto"),
    ],
)
def test_padding_of_a_tokenizer_is_a_way_to_batch(said: str, became: str) -> None:
    """False there means that the collator pads, as it is always done here."""
    assert became == loaded(OVER + f"tokenization: {{padding: {said}}}\n").data.batching
    assert scalar(said) in (True, False, said)


def test_trained_weights_are_trained_on_at_a_lower_rate() -> None:
    """1e-4 where nothing is said, T5's own 1e-3 with Adafactor; fresh weights and whoever says a rate have that."""
    for more, rate in (
        ("", 1e-4),
        ("train.optimizer: adafactor\n", 1e-3),
        ("model.fresh: true\n", 1e-3),
        ("learning_rate: 3e-4\n", 3e-4),
    ):
        assert rate == loaded(OVER + more).train.learning_rate


def test_do_sample_false_is_greedy() -> None:
    """The likeliest token, unless a temperature stands beside it."""
    assert 0.0 == loaded(OVER + "inference: {do_sample: false}\n").sample.temperature
    assert 0.5 == loaded(OVER + "inference: {do_sample: false, temperature: 0.5}\n").sample.temperature


def test_paths_begin_where_they_were_written(tmp_path: Path) -> None:
    """As the queue plans a run from elsewhere: what is there becomes absolute, a hub's name stays."""
    there = tmp_path / "there"
    (there / "my-t5").mkdir(parents=True)
    (there / "a.jsonl").touch()
    config = loaded("model.source: my-t5\ndata.train: [a.jsonl, owner/set]\ntrain.max_iters: 1\n")
    moved = read_from(config, there)
    assert (str(there / "my-t5"), (str(there / "a.jsonl"), "owner/set"), None) == (
        moved.model.source,
        moved.data.train,
        moved.data.val,
    )
    assert str(there / "data/tinystories") == moved.data.directory
    assert "t5-small" == read_from(loaded(OVER), there).model.source


def test_the_page_s_command_fine_tunes() -> None:
    """docs/huggingface.md: its command on its config is a run of mT5 on pairs."""
    page = reference.names_page()
    Path("configs").mkdir()
    Path("configs/base.yaml").write_text(reference.base_yaml(), encoding="utf-8")
    Path("config.yaml").write_text(re.findall(r"```yaml\n(.*?)```", page, re.S)[0], encoding="utf-8")
    (typed,) = re.findall(r"```sh\nganeum train config.yaml (.*?)```", page, re.S)
    words = shlex.split(typed)
    assert ["--config-section", "small"] == words[:2]
    config = load("config.yaml", split_arguments(words[2:])[1], section="small")
    assert ("google/mt5-small", "news.jsonl", "summarize: ", 512) == (
        config.model.source,
        config.data.train,
        config.data.prefix,
        config.data.max_length,
    )
    assert ("body", "title", 10) == (config.data.source_column, config.data.target_column, config.train.max_iters)
