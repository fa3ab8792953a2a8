"""What is written out loads where it is meant to: here, in transformers, in DeepSpeed; and says the same there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from emitted import CARD, ROOT, arguments, planned

from ganeum.cli.examples import refreshed
from ganeum.config import load
from ganeum.config.schema import Config
from ganeum.errors import GaneumError
from ganeum.hardware.device import Device
from ganeum.plan import closed_form, emit
from ganeum.plan.architecture import find
from ganeum.plan.question.subject import Model
from ganeum.plan.question.use import read
from ganeum.step import schedule

CONFIGS = sorted(file for file in (ROOT / "configs").rglob("*.yaml") if file.name != "base.yaml")  # it has no length
CASES: list[list[str]] = [
    ["train.optimizer=adamw8bit", "train.precision=fp16", "train.schedule=wsd", "train.min_learning_rate=0"],
    ["train.optimizer=adafactor", "train.precision=fp32", "train.warmup_iters=7", "train.eval_interval=50"],
    ["train.optimizer=sgd", "train.momentum=0.0", "train.micro_batch_size=4", "train.activation_checkpointing=whole"],
    ["train.schedule=constant", "train.eval_batch_size=32", "train.checkpoint_interval=25", "log.interval=5", "seed=7"],
]


def kept(plan: dict[str, Any]) -> dict[str, Any]:
    """A plan without what says how it came to be."""
    return {key: value for key, value in plan.items() if key not in ("config_sha256", "choices", "warnings")}


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_config_is_written_and_read_back_equal(file: Path, tmp_path: Path) -> None:
    """Every shipped config, written as what differs from the defaults, loads equal."""
    config = load(file)
    copy = tmp_path / file.name
    copy.write_text(emit.ganeum(config), encoding="utf-8")
    assert load(copy) == config


@pytest.mark.parametrize("overrides", [[], *CASES], ids=" ".join)
def test_plan_written_loaded_planned(overrides: list[str], tmp_path: Path) -> None:
    """A plan, written with its choices, loaded and planned again, is the same plan, and chooses nothing any more but
    what is left to the data and to the machine that trains."""
    config, plan = planned(overrides)
    file = tmp_path / "copy.yaml"
    file.write_text(emit.ganeum(config, plan), encoding="utf-8")
    again = closed_form.plan(load(file), device=CARD, tokens=10_000_000, vocab_size=50_257)
    assert kept(again) == kept(plan)
    assert [choice["key"] for choice in again["choices"]] == ["model.vocab_size", "train.compile"]


def test_only_what_differs_is_written() -> None:
    """No line repeats a default; each has a reason."""
    config, plan = planned()
    written = yaml.safe_load(emit.ganeum(config, plan))
    defaults = Config().model_dump()
    for section in ("model", "data", "train"):
        for key, value in written.get(section, {}).items():
            assert defaults[section][key] != value
    assert emit.ganeum(config, plan).startswith("# As planned for RTX 4080.\nname: test_run")
    reasons = {choice["key"]: choice["reason"] for choice in plan["choices"]}
    flat = " ".join(emit.ganeum(config, plan).replace("#", "").split())
    assert reasons["train.micro_batch_size"] in flat


def test_awkward_values(tmp_path: Path) -> None:
    """Text that YAML could misread, small and large numbers, null, and nested sections come back as they were."""
    config = Config.model_validate(
        {
            "name": "007",
            "train": {"tokens": 2_000_000_000.0, "learning_rate": 1e-05, "lora": {"rank": 8}, "init_from": "null: yes"},
            "sample": {"prompt": "a: b # c\u0085d 'e'", "top_k": None},
            "log": {"wandb": {"project": "true"}, "mlflow": {"experiment": "1e3"}},
        }
    )
    file = tmp_path / "a.yaml"
    file.write_text(emit.ganeum(config), encoding="utf-8")
    assert load(file) == config
    assert "  tokens: 2_000_000_000  #" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("overrides", [[], *CASES], ids=" ".join)
def test_transformers_takes_it(overrides: list[str]) -> None:
    """TrainingArguments accepts every field, and its batch, precision and length are the plan's."""
    config, plan = planned(overrides)
    theirs = arguments(emit.hugging_face(config, plan))
    batch = plan["batch"]
    assert theirs.per_device_train_batch_size == batch["micro_batch_size"]
    assert theirs.gradient_accumulation_steps == batch["gradient_accumulation_steps"]
    assert theirs.per_device_train_batch_size * theirs.gradient_accumulation_steps == config.train.batch_size
    assert theirs.max_steps == plan["data"]["steps"]
    assert (theirs.bf16, theirs.fp16) == tuple(plan["device"]["precision"] == name for name in ("bf16", "fp16"))
    assert theirs.learning_rate == config.train.learning_rate
    assert theirs.gradient_checkpointing == (config.train.activation_checkpointing == "whole")


@pytest.mark.parametrize("overrides", [[], *CASES], ids=" ".join)
def test_their_schedule_is_ours(overrides: list[str]) -> None:
    """transformers' own scheduler, built from what is written, gives our learning rates."""
    from transformers import get_scheduler

    config, plan = planned(["train.max_iters=400", *overrides])
    theirs = arguments(emit.hugging_face(config, plan))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=theirs.learning_rate)
    scheduler = get_scheduler(
        theirs.lr_scheduler_type,
        optimizer,
        num_warmup_steps=theirs.get_warmup_steps(400),
        num_training_steps=400,
        scheduler_specific_kwargs=dict(theirs.lr_scheduler_kwargs or {}),
    )
    for step in range(400):
        ours = schedule.learning_rate(step, config.train, 400)
        assert scheduler.get_last_lr()[0] == pytest.approx(ours, abs=0.15 * config.train.learning_rate)
        if step > 50:
            assert scheduler.get_last_lr()[0] == pytest.approx(ours, abs=0.01 * config.train.learning_rate)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("overrides", [[], *CASES], ids=" ".join)
def test_our_own_reading_of_it(overrides: list[str], tmp_path: Path) -> None:
    """Read back here, through Hugging Face's names, the training is the same in all that these can say."""
    config, plan = planned(overrides)
    file = tmp_path / "config.yaml"
    file.write_text(emit.hugging_face(config, plan), encoding="utf-8")
    again = load(file, section="test_run").train
    settled = load_settled(config, plan, tmp_path).train
    keys = {"batch_size", "micro_batch_size", "optimizer", "learning_rate", "weight_decay", "beta1", "beta2"}
    keys |= {"grad_clip", "schedule", "precision", "activation_checkpointing", "keep_last"}
    assert again.model_dump(include=keys) == settled.model_dump(include=keys)
    assert again.max_iters == plan["data"]["steps"]
    assert schedule.min_learning_rate(again) == pytest.approx(schedule.min_learning_rate(settled))
    assert schedule.warmup_iters(again, again.max_iters or 0) == schedule.warmup_iters(settled, again.max_iters or 0)


def load_settled(config: Config, plan: dict[str, Any], directory: Path) -> Config:
    """The config with the plan's choices in it."""
    file = directory / "settled.yaml"
    file.write_text(emit.ganeum(config, plan), encoding="utf-8")
    return load(file)


HF_TEXT = """\
test_run:
  training:
    output_dir: results/test_run
    per_device_train_batch_size: 16
    per_device_eval_batch_size: 16
    gradient_accumulation_steps: 4  # 16 × 4 = 64 sequences a step
    max_steps: 100
    bf16: false
    fp16: true
    gradient_checkpointing: true  # whole blocks; ours would be the MLPs
    optim: adamw_torch_fused
    learning_rate: 0.0003
    weight_decay: 0.1
    adam_beta1: 0.9
    adam_beta2: 0.95
    max_grad_norm: 1.0
    lr_scheduler_type: cosine_with_min_lr
    lr_scheduler_kwargs: {min_lr: 3.0e-05}
    warmup_steps: 10  # 2 % of all
    eval_strategy: steps
    eval_steps: 0.1  # a share of all steps
    save_steps: 0.1
    save_total_limit: 2
    logging_steps: 10
    seed: 1337
  inference:
    batch_size: 16
"""


def test_the_whole_text() -> None:
    """In the form of an author's YAML for the Trainer: a section, training and inference."""
    config, plan = planned(
        [
            "train.batch_size=64",
            "train.micro_batch_size=16",
            "train.max_iters=100",
            "train.learning_rate=3e-4",
            "train.precision=fp16",
            "train.activation_checkpointing=selective",
            "train.warmup_iters=auto",
            "train.weight_decay=0.1",
            "train.min_learning_rate=auto",
            "train.schedule=cosine",
        ]
    )
    plan["choices"] = []
    assert emit.hugging_face(config, plan) == HF_TEXT


def test_what_the_trainer_cannot_say() -> None:
    """What TrainingArguments has no name for stands above as a comment."""
    config, plan = planned(["train.weights=bf16", "train.optimizer_offload=true", "train.optimizer=sgd", "name=007"])
    assert emit.hugging_face(config, plan).splitlines()[:4] == [
        "# not in TrainingArguments: train.weights: bf16 (load the model with dtype=torch.bfloat16)",
        "# not in TrainingArguments: train.momentum: 0.95 (its SGD has none)",
        "# not in TrainingArguments: train.optimizer_offload (deepspeed: the file that --emit deepspeed writes)",
        "'007':",
    ]


def test_a_batch_that_cannot_be_shared_out() -> None:
    """Three GPUs cannot take the same number of 64 sequences."""
    config, plan = planned()
    with pytest.raises(GaneumError) as caught:
        emit.deepspeed(config, plan, devices=3)
    assert str(caught.value) == (
        "ConfigError: train.batch_size is 64, which 3 GPUs cannot share equally\n"
        "  where  --emit deepspeed\n"
        "  why    DeepSpeed wants micro-batch × accumulation × GPUs to be the batch\n"
        "  try    train.batch_size=66"
    )


def test_a_model_by_its_name() -> None:
    """T5 and mT5 for a card, as an author's YAML has them: sequences at once for training, evaluation and inference."""
    for name in ("t5-base", "mt5-large"):
        model = Model(find(name), read(["batch_size=8", "tokens=1e6"]))
        text = model.emit("hf", model.plan(CARD), CARD)
        theirs = arguments(text)
        assert theirs.per_device_train_batch_size * theirs.gradient_accumulation_steps == 8
        assert theirs.max_steps == -(-1_000_000 // (8 * 128))  # 128 tokens are written for each sequence
        assert theirs.per_device_eval_batch_size >= theirs.per_device_train_batch_size
        assert yaml.safe_load(text)[name]["inference"]["batch_size"] >= 1


def test_several_gpus_share_the_batch() -> None:
    """On four GPUs a batch of 32 is 32 together, as the Trainer multiplies it."""
    model = Model(find("t5-small"), read(["batch_size=32", "micro_batch_size=2", "devices=4"]))
    plan = model.plan(CARD)
    theirs = arguments(model.emit("hf", plan, CARD))
    assert theirs.per_device_train_batch_size * theirs.gradient_accumulation_steps * 4 == 32
    found = json.loads(model.emit("deepspeed", plan, CARD))
    assert found["train_batch_size"] == 32
    assert found["train_micro_batch_size_per_gpu"] * found["gradient_accumulation_steps"] * 4 == 32


def test_a_length_that_nobody_said() -> None:
    """Without a length none is written, and what the Trainer would then do is said."""
    model = Model(find("t5-small"), read(["batch_size=8"]))
    text = model.emit("hf", model.plan(CARD), CARD)
    assert text.splitlines()[0] == ("# not said: max_steps or num_train_epochs; TrainingArguments takes 3 epochs")
    assert arguments(text).num_train_epochs == 3


def test_the_page_shows_what_is_written() -> None:
    """Every command of docs/emit.md writes what stands there: python -m ganeum.cli.examples docs/emit.md."""
    page = (ROOT / "docs" / "emit.md").read_text(encoding="utf-8")
    assert page == refreshed(page, ROOT)


def test_muon_is_refused() -> None:
    """The Trainer has no Muon, and nothing else is written in its place."""
    config, plan = planned(["train.optimizer=muon"])
    with pytest.raises(GaneumError) as caught:
        emit.hugging_face(config, plan)
    assert str(caught.value) == (
        "ConfigError: train.optimizer: muon cannot be written as TrainingArguments\n"
        "  where  --emit hf\n"
        "  why    Hugging Face's Trainer has no such optimizer\n"
        "  try    train.optimizer=adamw"
    )


def test_hours_without_a_speed_are_refused() -> None:
    """Where nobody knows how many steps the hours hold, no number of steps is made up."""
    config = load(ROOT / "configs" / "demo.yaml")
    unknown = Device("A Card", "cuda", 16.0, 15.0, {}, capability=(8, 0))
    plan = closed_form.plan(config, device=unknown, vocab_size=4096)
    with pytest.raises(GaneumError) as caught:
        emit.hugging_face(config, plan)
    assert str(caught.value) == (
        "ConfigError: how many steps there are is not known\n"
        "  where  --emit hf\n"
        "  why    TrainingArguments counts steps or epochs, and how many of them the hours hold depends on the speed\n"
        "  try    train.max_iters, train.tokens or train.epochs in place of train.hours"
    )
