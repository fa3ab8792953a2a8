"""What is refused of Hugging Face's names, and sections of a file, by the full text that a user reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganeum.config import load
from ganeum.errors import GaneumError

# Document 002, the V100's section, word for word (its comments left out).
DOCUMENT_002 = """\
xlsum_mt5:
  training:
    per_device_train_batch_size: 1
    per_device_eval_batch_size: 2
    gradient_accumulation_steps: 4
  inference:
    batch_size: 2

eenzeenee:
  training:
    per_device_train_batch_size: 4
    per_device_eval_batch_size: 4
    gradient_accumulation_steps: 2
  inference:
    batch_size: 8
"""
TEXTS = {
    "max_steps: 3\nper_device_train_batch_size: 4\ntrain:\n  batch_size: 64\n": """\
ConfigError: per_device_train_batch_size: 4 comes to train.batch_size: 4, but it is 64 beside that
  where  a.yaml, lines 2 and 4
  why    it is said twice, in two ways
  try    remove one of them""",
    "max_steps: 3\nbf16: true\ndeepspeed: {fp16: {enabled: true}}\n": """\
ConfigError: deepspeed comes to train.precision: fp16, but bf16: true to bf16
  where  a.yaml, lines 2 and 3
  why    it is said twice, in two ways
  try    remove one of them""",
    "max_steps: 3\ntraining:\n  max_steps: 4\n": """\
ConfigError: training.max_steps stands twice, first in a.yaml, line 1
  where  a.yaml, line 3
  why    only one of the two values could count
  try    remove one of them""",
    "max_steps: 3\ngradient_accumulation_steps: 4\n": """\
ConfigError: gradient_accumulation_steps says nothing without per_device_train_batch_size
  where  a.yaml, line 2
  why    it follows from train.batch_size, which the model learns with, and train.micro_batch_size, which fits
  try    per_device_train_batch_size beside it, or train.batch_size without it""",
    # every one that is wrong, in the order of the file
    "max_steps: x\nfp16: 1\nper_device_train_batch_size: 1.5\npush_to_hub: true\nfsdp: full_shard\n"
    "optim: lion_8bit\nlr_scheduler_type: polynomial\nreport_to: [comet_ml]\nmax_grad_norm: many\n": """\
ConfigError: max_steps must be a number, but it is 'x'
  where  a.yaml, line 1

ConfigError: fp16 must be true or false, but it is '1'
  where  a.yaml, line 2

ConfigError: per_device_train_batch_size must be a whole number of at least 1, but it is 1.5
  where  a.yaml, line 3

ConfigError: push_to_hub: true has no meaning here
  where  a.yaml, line 4
  why    nothing is sent anywhere; `ganeum export RUN` writes a directory that can be uploaded

ConfigError: fsdp: full_shard has no meaning here
  where  a.yaml, line 5
  why    one device has nothing to share out; train.optimizer_offload and train.weights save memory

ConfigError: optim: lion_8bit has no meaning here
  where  a.yaml, line 6
  why    the optimizers are adamw, muon, adamw8bit, adafactor and sgd
  try    train.optimizer: adamw8bit

ConfigError: lr_scheduler_type: polynomial has no meaning here
  where  a.yaml, line 7
  why    the schedules are cosine, wsd (constant, then linear decay) and constant
  try    lr_scheduler_type: linear or cosine

ConfigError: report_to: comet_ml has no meaning here
  where  a.yaml, line 8
  why    the trackers are tensorboard, wandb, mlflow, trackio
  try    report_to: tensorboard, whose files most trackers read

ConfigError: train.grad_clip must be a number of at least 0, but it is the text 'many'
  where  a.yaml, line 9""",
    "max_steps: 3\nreport_to: [tensorboard, none]\n": """\
ConfigError: report_to cannot be both none and tensorboard
  where  a.yaml, line 2
  why    only one of them could count
  try    remove one of them""",
    "max_steps: 3\neval_strategy: epoch\nlogging_strategy: no\n": """\
ConfigError: eval_strategy: epoch needs num_train_epochs beside it, and no max_steps
  where  a.yaml, line 2
  why    an epoch is a share of all steps here
  try    train.eval_interval, in steps or as a share of all

ConfigError: logging_strategy: no has no meaning here
  where  a.yaml, line 3
  why    it is one of steps and epoch
  try    log.interval""",
    "max_steps: 3\nfp16: true\nbf16: true\n": """\
ConfigError: fp16 and bf16 cannot both be true
  where  a.yaml, lines 2 and 3
  why    a run computes in one precision
  try    train.precision: auto""",
    "max_steps: 3\nlr_scheduler_type: linear\nlr_scheduler_kwargs: {power: 2}\n": """\
ConfigError: lr_scheduler_kwargs: power has no meaning here with linear
  where  a.yaml, line 3
  why    min_lr, min_lr_rate, min_lr_ratio and num_decay_steps are understood, where the schedule has them
  try    train.schedule, train.min_learning_rate and train.decay_share""",
    "max_steps: 3\ndeepspeed: ds_config.json\n": """\
ConfigError: the DeepSpeed config ds_config.json cannot be read
  where  a.yaml, line 2
  why    there is no such file, neither beside the config nor here
  try    the file's own path; or without one train.optimizer_offload: true, which such a file is for on one device""",
    "max_steps: 3\ndeepspeed: {aio: {}, zero_optimization: {stage: 2}}\n": """\
ConfigError: deepspeed: aio has no meaning here
  where  a.yaml, line 2
  why    of its parts zero_optimization, optimizer, scheduler, bf16, fp16 and gradient_clipping are understood
  try    the file without it""",
    "max_steps: 3\nlearning_rate: 1e-4\ndeepspeed: {optimizer: {type: AdamW, params: {lr: 5e-5}}}\n": """\
ConfigError: deepspeed comes to train.learning_rate: 5e-05, but learning_rate: 1e-4 to 1e-4
  where  a.yaml, lines 2 and 3
  why    it is said twice, in two ways
  try    remove one of them""",
    "max_steps: 3\ndeepspeed: {optimizer: {type: Lamb}}\n": """\
ConfigError: deepspeed: optimizer.type: "Lamb" has no meaning here
  where  a.yaml, line 2
  why    it is one of Adam, AdamW
  try    train.optimizer""",
    "max_steps: 3\ndeepspeed: {zero_optimization: {offload_optimizer: cpu}}\n": """\
ConfigError: deepspeed: zero_optimization.offload_optimizer: "cpu" has no meaning here
  where  a.yaml, line 2
  why    it holds keys with values
  try    the file without it""",
    "max_steps: 3\ndeepspeed: {bf16: {enabled: true}, fp16: {enabled: true}}\n": """\
ConfigError: deepspeed: bf16.enabled: true has no meaning here
  where  a.yaml, line 2
  why    fp16 is enabled too, and a run computes in one precision
  try    the file without it""",
    "max_steps: 3\ndeepspeed: {optimizer: {type: AdamW, params: {betas: 0.9}}}\n": """\
ConfigError: deepspeed: optimizer.params.betas: 0.9 has no meaning here
  where  a.yaml, line 2
  why    they are two numbers
  try    the file without it""",
    "max_steps: 3\ndeepspeed: {scheduler: {type: WarmupLR, params: {warmup_type: log}}}\n": """\
ConfigError: deepspeed: scheduler.params.warmup_type: "log" has no meaning here
  where  a.yaml, line 2
  why    it is "linear" here
  try    the file without it""",
    "max_steps: 3\nper_device_train_batch_size: 8\ndeepspeed: {train_batch_size: 32}\n": """\
ConfigError: deepspeed: train_batch_size is 32, but per_device_train_batch_size × gradient_accumulation_steps is 8
  where  a.yaml, line 3
  try    "train_batch_size": "auto", and per_device_train_batch_size × gradient_accumulation_steps in the config""",
    "max_steps: 3\ndeepspeed: {zero_optimization: {offload_param: {device: cpu}}}\n": """\
ConfigError: deepspeed: zero_optimization.offload_param has no meaning in stage 0
  where  a.yaml, line 2
  why    only stage 3 takes a weight to the device when its layer computes
  try    "stage": 3, or offload_optimizer alone""",
    "max_steps: 3\nper_device_train_batch_size: 8\ndeepspeed: {train_micro_batch_size_per_gpu: 4}\n": """\
ConfigError: deepspeed: train_micro_batch_size_per_gpu is 4, but per_device_train_batch_size is 8
  where  a.yaml, line 3
  try    "train_micro_batch_size_per_gpu": "auto", and per_device_train_batch_size in the config""",
    "max_steps: 3\nmodel:\n  model_type: t5\n  resid_pdrop: 0.1\n  attn_pdrop: 0.2\n"
    "  rope_scaling: {rope_type: yarn}\n": """\
ConfigError: model.model_type: t5 has no meaning here
  where  a.yaml, line 3
  why    a model is built as GPT-2 or as Qwen3 here
  try    model.style: gpt2 or modern

ConfigError: model.resid_pdrop: 0.1, model.attn_pdrop: 0.2 have no meaning here
  where  a.yaml, lines 4 and 5
  why    they are one number here, model.dropout
  try    model.dropout

ConfigError: model.rope_scaling can hold rope_theta alone here
  where  a.yaml, line 6
  why    positions are rotated without scaling
  try    model.rope_theta""",
    "max_steps: 3\ntraining: 5\n": """\
ConfigError: training holds keys, so it cannot be 5
  where  a.yaml, line 2""",
    DOCUMENT_002: """\
ConfigError: xlsum_mt5 is a section of this file, and none is chosen
  where  a.yaml, line 1
  try    --config-section xlsum_mt5

ConfigError: eenzeenee is a section of this file, and none is chosen
  where  a.yaml, line 9
  try    --config-section eenzeenee""",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(text: str, section: str | None = None) -> str:
    Path("a.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(GaneumError) as caught:
        load("a.yaml", section=section)
    return str(caught.value)


@pytest.mark.parametrize(("text", "expected"), TEXTS.items(), ids=range(len(TEXTS)))
def test_what_cannot_be_turned_is_refused_by_name(text: str, expected: str) -> None:
    """Each name as it was written, its line, and why it means nothing here."""
    assert expected == said(text)


def test_document_002_loads_unchanged() -> None:
    """Its command, `--config-section eenzeenee --max_steps 10 --save_steps 1000`: the length comes by override."""
    Path("config.yaml").write_text(DOCUMENT_002)
    config = load("config.yaml", ["max_steps=10", "save_steps=1000"], section="eenzeenee")
    train = config.train
    assert ("config-eenzeenee", 8, 4, 4) == (
        config.name,
        train.batch_size,
        train.micro_batch_size,
        train.eval_batch_size,
    )
    assert (10, 1000) == (train.max_iters, train.checkpoint_interval)
    assert (4, 1) == (
        (mt5 := load("config.yaml", ["max_steps=10"], section="xlsum_mt5").train).batch_size,
        mt5.micro_batch_size,
    )


def test_a_section_inherits_from_its_own_base_or_the_file_s() -> None:
    """`base:` inside a section, else that at the top of the file; nothing else of the file is read."""
    Path("one.yaml").write_text("model: {n_layer: 3}\ntrain: {max_iters: 5}\n")
    Path("two.yaml").write_text("model: {n_layer: 4}\ntrain: {max_iters: 5}\n")
    Path("a.yaml").write_text("base: one.yaml\nmodel: {n_head: 2}\nx:\n  seed: 1\ny:\n  base: two.yaml\n  seed: 2\n")
    found = [load("a.yaml", section=name) for name in ("x", "y")]
    assert [(3, 1), (4, 2)] == [(config.model.n_layer, config.seed) for config in found]
    assert [6, 6] == [config.model.n_head for config in found]


def test_a_section_that_is_not_there_is_told_with_those_that_are() -> None:
    """The nearest is suggested; a file of one config says that it is one."""
    assert said(DOCUMENT_002, "eenzene") == (
        "ConfigError: there is no section eenzene\n"
        "  where  a.yaml\n"
        "  why    its sections are xlsum_mt5, eenzeenee\n"
        "  try    --config-section eenzeenee"
    )
    assert said("train: {max_iters: 3}\n", "x") == (
        "ConfigError: there is no section x\n"
        "  where  a.yaml\n"
        "  why    it has no sections: it is one config\n"
        "  try    the file without --config-section"
    )
    assert said("a/b:\n  max_steps: 3\n", "a/b") == (
        "ConfigError: the run would be called 'a-a/b' after its file, but '/' cannot stand in a directory's name\n"
        "  where  a.yaml\n  try    name: a_name_of_letters_and_digits"
    )
