"""Hugging Face's names: each is turned, named as needless, or refused; and who wins over whom."""

from __future__ import annotations

import dataclasses
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from ganeum.config import Config, load, reference
from ganeum.config.arguments import split_arguments
from ganeum.config.huggingface import SWITCHES, TABLE
from ganeum.config.keys import keys, value_of
from ganeum.errors import ConfigError, GaneumError
from ganeum.step.schedule import learning_rate

LENGTH = "train: {max_iters: 100}\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(text: str, *overrides: str, section: str | None = None) -> Config:
    Path("a.yaml").write_text(text, encoding="utf-8")
    return load("a.yaml", overrides, section=section)


def training_arguments() -> Any:
    return pytest.importorskip("transformers").TrainingArguments


def test_every_training_argument_is_known() -> None:
    """Of the installed transformers' TrainingArguments, for pairs too, no field is an unknown key here."""
    for_pairs = pytest.importorskip("transformers").Seq2SeqTrainingArguments
    assert "predict_with_generate" in {field.name for field in dataclasses.fields(for_pairs)}
    assert set() == {field.name for field in dataclasses.fields(for_pairs)} - set(TABLE)


def test_every_switch_may_stand_alone() -> None:
    """`--fp16` is `fp16=true` for every field that the Trainer's own command line takes so."""
    fields = dataclasses.fields(training_arguments())
    bools = {
        field.name for field in fields if re.fullmatch(r"bool( \| None)?", str(getattr(field.type, "__name__", "")))
    }
    assert {"fp16", "push_to_hub"} <= bools
    assert set() == bools - SWITCHES
    assert ([], ["fp16=true", "max_steps=10"]) == split_arguments(["--fp16", "--max_steps", "10"])
    for words in ("--report_to tensorboard wandb a.yaml seed=3", "--report_to tensorboard wandb --seed 3 a.yaml"):
        assert (["a.yaml"], ["report_to=tensorboard,wandb", "seed=3"]) == split_arguments(words.split())


def test_the_trainer_s_defaults_load_as_they_stand() -> None:
    """All of TrainingArguments, dumped with its defaults, is a config that trains as the Trainer would."""
    config = loaded(yaml.safe_dump(json.loads(training_arguments()(output_dir="out/x").to_json_string())))
    expected = {
        "name": "x",
        "seed": 42,
        "data.order": "epochs",
        "train.batch_size": 8,
        "train.micro_batch_size": 8,
        "train.eval_batch_size": 8,
        "train.epochs": 3.0,
        "train.learning_rate": 5e-5,
        "train.schedule": "wsd",
        "train.decay_share": 1.0,
        "train.min_learning_rate": 0.0,
        "train.warmup_iters": 0,
        "train.weight_decay": 0.0,
        "train.beta2": 0.999,
        "train.precision": "fp32",
        "train.checkpoint_interval": 500,
        "log.interval": 500,
        "log.tensorboard": False,
    }
    assert expected == {key: value_of(config, key) for key in expected}


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant_with_warmup", "cosine_with_min_lr"])
def test_a_schedule_is_that_of_transformers(kind: str) -> None:
    """After the warm-up the learning rate of every step is what transformers' own schedule gives."""
    optimization = pytest.importorskip("transformers.optimization")
    torch = pytest.importorskip("torch")
    options = {"min_lr": 1e-4} if "min_lr" in kind else {}
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    theirs = optimization.get_scheduler(
        kind, optimizer, num_warmup_steps=5, num_training_steps=100, scheduler_specific_kwargs=options
    )
    text = f"max_steps: 100\nwarmup_steps: 5\nlearning_rate: 1e-3\nlr_scheduler_type: {kind}\n"
    ours = loaded(text + (f"lr_scheduler_kwargs: {options}\n" if options else "")).train
    for step in range(100):
        if step >= 5:
            assert theirs.get_last_lr()[0] == pytest.approx(learning_rate(step, ours, 100), abs=1e-12), step
        optimizer.step()
        theirs.step()


def test_every_optimizer_and_schedule_is_turned_or_refused_by_name() -> None:
    """No value of `optim` or `lr_scheduler_type` falls through."""
    package = pytest.importorskip("transformers.training_args")
    utils = pytest.importorskip("transformers.trainer_utils")
    for name, values in (("optim", package.OptimizerNames), ("lr_scheduler_type", utils.SchedulerType)):
        for value in values:
            said = ""
            try:
                loaded(f"{LENGTH}{name}: {value.value}\n")
            except ConfigError as error:
                said = str(error)
            assert not said or said.startswith(f"ConfigError: {name}: {value.value} has no meaning here\n")


@pytest.mark.parametrize("model", ["gpt2", "qwen3"])
def test_a_model_s_own_config_is_a_model_here(model: str) -> None:
    """GPT2Config's and Qwen3Config's config.json load below `model:`, and every name of theirs is known."""
    transformers = pytest.importorskip("transformers")
    if model == "gpt2":
        theirs = transformers.GPT2Config(resid_pdrop=0.1, n_inner=512, n_layer=3)
        expected: dict[str, object] = {
            "style": "gpt2",
            "n_layer": 3,
            "n_embd": 768,
            "block_size": 1024,
            "dropout": 0.1,
            "intermediate_size": 512,
            "norm_eps": 1e-5,
            "activation": "gelu_tanh",
            "vocab_size": 50257,
        }
    else:
        theirs = transformers.Qwen3Config(
            hidden_size=64, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2, head_dim=16,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6}, use_sliding_window=False,
        )  # fmt: skip
        expected = {
            "style": "modern",
            "n_layer": 3,
            "n_embd": 64,
            "n_head": 8,
            "n_kv_head": 2,
            "head_dim": 16,
            "intermediate_size": 22016,
            "block_size": 32768,
            "norm_eps": 1e-6,
            "rope_theta": 1e6,
            "tie_embeddings": False,
        }
    written = {"model": json.loads(theirs.to_json_string(use_diff=False)), "train": {"max_iters": 3}}
    config = loaded(yaml.safe_dump(written))
    assert expected == {name: getattr(config.model, name) for name in expected}


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("train.batch_size", 8, "per_device_train_batch_size: 4\ngradient_accumulation_steps: 2"),
        ("train.micro_batch_size", 4, "per_device_train_batch_size: 4\ngradient_accumulation_steps: 2"),
        ("train.micro_batch_size", "auto", "per_device_train_batch_size: 4\nauto_find_batch_size: true"),
        ("train.batch_size", 4, "per_device_train_batch_size: 4\nauto_find_batch_size: true"),
        ("train.batch_size", 64, "gradient_accumulation_steps: 1"),
        ("train.precision", "fp16", "training: {fp16: true, bf16: false}"),
        ("train.precision", "bf16", "bf16: true\ntf32: true"),
        ("train.precision", "tf32", "tf32: true"),
        ("train.precision", "fp32", "fp16: false"),
        ("train.activation_checkpointing", "whole", "gradient_checkpointing: true"),
        ("train.activation_checkpointing", "whole", "train.activation_checkpointing: true"),
        ("train.activation_checkpointing", "selective", "train.activation_checkpointing: selective"),
        ("train.optimizer", "adamw", "optim: adamw_torch_fused"),
        ("train.optimizer", "adamw8bit", "optim: paged_adamw_8bit"),
        ("train.momentum", 0.0, "optim: sgd"),
        ("train.momentum", 0.9, "optim: sgd\ntrain.momentum: 0.9"),
        ("train.schedule", "constant", "lr_scheduler_type: constant"),
        ("train.warmup_iters", 0, "lr_scheduler_type: constant"),
        ("train.warmup_iters", 0.05, "warmup_ratio: 0.05"),
        ("train.warmup_iters", 0.05, "warmup_steps: 0.05"),
        ("train.warmup_iters", 20, "warmup_steps: 20\nwarmup_ratio: 0.05"),
        ("train.min_learning_rate", 0.0, "lr_scheduler_type: cosine"),
        ("train.min_learning_rate", 1e-5, "lr_scheduler_type: cosine\ntrain.min_learning_rate: 1e-5"),
        (
            "train.min_learning_rate",
            1e-4,
            "learning_rate: 1e-3\nlr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr_rate: 0.1}",
        ),
        ("train.keep_last", 3, "save_total_limit: 3"),
        ("train.checkpoint_interval", 1000, "save_steps: 1000"),
        ("train.eval_interval", 50, "eval_strategy: steps\nlogging_steps: 50"),
        ("train.eval_interval", 20, "eval_strategy: steps\neval_steps: 20\nlogging_steps: 50"),
        ("train.eval_interval", "auto", "eval_strategy: no\neval_steps: 20"),
        ("log.interval", 50, "logging_steps: 50"),
        ("log.wandb.project", "mine", "report_to: [wandb, tensorboard]\nproject: mine"),
        ("log.tensorboard", True, "report_to: [wandb, tensorboard]"),
        ("log.tensorboard", False, "report_to: wandb"),
        ("log.trackio.project", "huggingface", "report_to: trackio"),
        ("name", "small", "output_dir: ./results/small/"),
        ("name", "this", "output_dir: results/small\nrun_name: this"),
        ("device", "cpu", "use_cpu: true"),
        ("seed", 7, "training: {seed: 7, data_seed: 7}"),
        ("sample.top_k", 5, "inference: {batch_size: 8, top_k: 5}"),
        ("model.n_embd", 64, "hidden_size: 64\nmodel: {n_head: 4}"),
        ("train.learning_rate", 3e-4, "learning_rate: 3e-4"),
        ("train.optimizer_offload", True, "deepspeed: {zero_optimization: {offload_optimizer: {device: cpu}}}"),
        ("train.precision", "bf16", "deepspeed: {bf16: {enabled: true}, steps_per_print: 10}"),
        ("train.grad_clip", 0.5, 'deepspeed: \'{"gradient_clipping": 0.5, "train_batch_size": "auto"}\''),
        ("train.learning_rate", 5e-5, "deepspeed: {optimizer: {type: AdamW, params: {lr: 5e-5}}}"),
        ("train.learning_rate", 3e-4, "learning_rate: 3e-4\ndeepspeed: {optimizer: {type: Adam, params: {lr: auto}}}"),
        ("train.beta2", 0.98, "deepspeed: {optimizer: {type: AdamW, params: {betas: [0.9, 0.98]}}}"),
        ("train.weight_decay", 0.2, "deepspeed: {optimizer: {type: AdamW, params: {weight_decay: 0.2, eps: 1e-8}}}"),
        ("train.warmup_iters", 7, "deepspeed: {scheduler: {type: WarmupLR, params: {warmup_num_steps: 7}}}"),
        ("train.schedule", "constant", "deepspeed: {scheduler: {type: WarmupLR, params: {warmup_num_steps: 7}}}"),
        ("train.min_learning_rate", 0.0, "deepspeed: {scheduler: {type: WarmupDecayLR}}"),
    ],
)
def test_a_name_is_turned(key: str, value: object, text: str) -> None:
    """What the Trainer would do with the name, in our keys; what it only implies yields to what is said."""
    assert value == value_of(loaded(LENGTH + text + "\n"), key)


def test_a_length_is_turned() -> None:
    """max_steps overrides num_train_epochs where it is above 0; epochs are shuffled passes."""
    assert (10, None) == (
        loaded("max_steps: 10\nnum_train_epochs: 3").train.max_iters,
        loaded("max_steps: 10").train.epochs,
    )
    config = loaded("max_steps: -1\nnum_train_epochs: 3\neval_strategy: epoch\nsave_strategy: epoch")
    assert (None, 3.0, "epochs") == (config.train.max_iters, config.train.epochs, config.data.order)
    assert (1 / 3, 1 / 3) == (config.train.eval_interval, config.train.checkpoint_interval)


def test_deepspeed_may_be_a_file_beside_the_config() -> None:
    """A path is taken from where the config lies."""
    Path("sub").mkdir()
    Path("sub/ds.json").write_text('{"fp16": {"enabled": true}, "zero_optimization": {"stage": 2}}')
    Path("sub/b.yaml").write_text("deepspeed: ds.json\nmax_steps: 3\n")
    assert "fp16" == load("sub/b.yaml").train.precision


def test_the_later_layer_wins_in_whosever_names() -> None:
    """The command line over the file and the file over its base, ours over theirs and theirs over ours; what is not
    said again stays."""
    Path("base.yaml").write_text("run_name: above\ntrain: {batch_size: 64, max_iters: 5}\nfp16: true\n")
    text = (
        "base: base.yaml\noutput_dir: results/b\nper_device_train_batch_size: 4\n"
        "gradient_accumulation_steps: 2\nmax_steps: 10\n"
    )
    config = loaded(text, "per_device_train_batch_size=2", "max_iters=20")
    assert ("b", 4, 2, 20, "fp16") == (
        config.name,
        config.train.batch_size,
        config.train.micro_batch_size,
        config.train.max_iters,
        config.train.precision,
    )
    assert (32, 4) == (
        loaded(text, "batch_size=32").train.batch_size,
        loaded(text, "batch_size=32").train.micro_batch_size,
    )
    assert (None, 2.0) == (
        loaded(text, "num_train_epochs=2").train.max_iters,
        loaded(text, "num_train_epochs=2").train.epochs,
    )


def test_a_count_on_the_command_line_replaces_the_file_s_strategy() -> None:
    """`--save_steps 1000` over `save_strategy: epoch` counts steps; `--eval_steps 20` over `eval_strategy: no` too."""
    text = "num_train_epochs: 2\nsave_strategy: epoch\neval_strategy: no\nwarmup_steps: 30\n"
    train = loaded(text, "save_steps=1000", "eval_steps=20", "max_steps=10", "warmup_ratio=0.1").train
    assert (1000, 20, 10, 0.1) == (
        train.checkpoint_interval,
        train.eval_interval,
        train.max_iters,
        train.warmup_iters,
    )


def test_the_page_shows_what_its_config_says() -> None:
    """docs/huggingface.md: its YAML with its command prints its notice."""
    blocks = re.findall(r"```(?:yaml|text)\n(.*?)```", reference.names_page(), re.S)
    Path("configs").mkdir()
    Path("configs/base.yaml").write_text(reference.base_yaml(), encoding="utf-8")
    Path("config.yaml").write_text(blocks[0], encoding="utf-8")
    said: list[str] = []
    config = load("config.yaml", ["max_steps=10"], section="small", say=said.append)
    assert [blocks[1].rstrip("\n")] == said
    assert "config-small" == config.name


def test_a_notice_says_nothing_of_what_was_replaced_and_repeats_no_secret() -> None:
    """A name whose key another layer set again is left out; a token is not printed."""
    said: list[str] = []
    Path("a.yaml").write_text("max_steps: 10\nlearning_rate: 1e-3\nhub_token: hf_secret\nfsdp: ''\n")
    load("a.yaml", ["max_iters=20"], say=said.append)
    assert said == [
        "Hugging Face's names in this config mean:\n"
        "  hub_token: … (only push_to_hub reads it, which is refused here)\n"
        "  fsdp:  (so it is here anyway)"
    ]
    said.clear()
    Path("a.yaml").write_text(LENGTH)
    load("a.yaml", say=said.append)
    assert said == []


WORDS = [
    *("true", "null", "-1", "0.5", "1e999", ".nan", "epoch", "cosine", "''", "[]", "{}", "[a, {b: c}]"),
    "{zero_optimization: {offload_optimizer: 1}}",
    "{min_lr: x, num_decay_steps: .nan, rope_theta: y, bf16: 1, zero_optimization: [1], gradient_clipping: x}",
]


@pytest.mark.parametrize("beside", ["", "max_steps: 3\n", "max_steps: 3\nlr_scheduler_type: warmup_stable_decay\n"])
def test_any_value_of_any_name_is_taken_or_an_error_of_ours(beside: str) -> None:
    """Nothing that stands behind a name that takes a rule leads to a traceback, in a file or on the command line."""
    for name in (name for name, entry in TABLE.items() if entry.rule):
        for word in WORDS:
            for text, overrides in ((f"{name}: {word}\n" + beside, []), (beside or LENGTH, [f"{name}={word}"])):
                with suppress(GaneumError):
                    Path("a.yaml").write_text(text)
                    load("a.yaml", overrides, say=str)


def test_every_turned_name_leads_to_keys_that_there_are() -> None:
    """What the page says a name is here, is a key, or the name that says it."""
    for name, entry in TABLE.items():
        for key in filter(None, entry.ours.split(", ")):
            assert key in keys() or key.removeprefix("as ") in TABLE, name
