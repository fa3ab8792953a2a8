"""Hugging Face's TrainingArguments as YAML: a section with `training:` and `inference:`, for its Trainer's scripts.

Each value is a field of `transformers.TrainingArguments` (5.23) and means there what the key it comes from means here;
what has no name there is left out and said in a comment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ganeum import units
from ganeum.config.schema import Config, Train
from ganeum.config.write import written
from ganeum.errors import ConfigError
from ganeum.plan.emit.settled import settled

OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw8bit": "adamw_8bit", "adafactor": "adafactor", "sgd": "sgd"}
NAME = "run"  # the section's, of a config without a name
TENTH = 0.1  # of all steps: what `auto` is for evaluations

Field = tuple[str, object, str]  # name, value, comment


def hugging_face(config: Config, plan: Mapping[str, Any], *, inference_batch_size: int | None = None) -> str:
    """The YAML: `NAME: {training: {…}, inference: {…}}`.

    ``yaml.safe_load`` of it gives ``TrainingArguments(**section["training"])``; `config.load` with this section gives
    the same batch, optimizer and length.

    Args:
        plan: of ``config``: its choices are the values where the config says ``auto``.
        inference_batch_size: sequences at once when text is generated; None: as in an evaluation.

    Raises:
        ConfigError: TrainingArguments does not know the optimizer, or nobody knows how many steps there are.
    """
    final, _ = settled(config, plan)
    lines = [
        *(f"# {text}" for text in _beside(final.train, plan)),
        f"{written(final.name or NAME)}:",
        "  training:",
        *map(_line, _training(final, plan)),
        "  inference:",
        _line(("batch_size", inference_batch_size or _at_once(final), "")),
    ]
    return "\n".join(lines) + "\n"


def _line(field: Field) -> str:
    name, value, comment = field
    return f"    {name}: {written(value)}" + (f"  # {comment}" if comment else "")


def _beside(train: Train, plan: Mapping[str, Any]) -> Iterator[str]:
    """What the script must do itself, since no argument of the Trainer does it, or nobody said it."""
    if _steps(train, plan) is None and train.epochs is None:
        yield "not said: max_steps or num_train_epochs; TrainingArguments takes 3 epochs"
    if train.weights == "bf16":
        yield "not in TrainingArguments: train.weights: bf16 (load the model with dtype=torch.bfloat16)"
    if train.lora.rank is not None:
        yield f"not in TrainingArguments: train.lora.rank: {train.lora.rank} (peft's LoraConfig)"
    if train.optimizer == "sgd" and train.momentum:
        yield f"not in TrainingArguments: train.momentum: {train.momentum:g} (its SGD has none)"
    if train.optimizer_offload:
        yield "not in TrainingArguments: train.optimizer_offload (deepspeed: the file that --emit deepspeed writes)"


def _training(config: Config, plan: Mapping[str, Any]) -> Iterator[Field]:
    train, micro = config.train, config.train.micro_batch_size
    assert isinstance(micro, int), "a plan has chosen it"
    yield "output_dir", f"results/{config.name or NAME}", ""
    yield "per_device_train_batch_size", micro, ""
    yield "per_device_eval_batch_size", _at_once(config), ""
    devices = plan["batch"].get("devices", 1)
    steps = train.batch_size // (micro * devices)
    together = f"{micro} × {steps}" + (f" × {devices} GPUs" if devices > 1 else "")
    yield "gradient_accumulation_steps", steps, f"{together} = {units.things(train.batch_size, 'sequence')} a step"
    yield from _length(config, plan)
    yield from _precision(train, plan)
    level = train.activation_checkpointing
    yield "gradient_checkpointing", level != "none", "whole blocks; ours would be the MLPs" * (level == "selective")
    yield from _optimizer(config)
    yield from _schedule(train, plan)
    evaluated = TENTH if train.eval_interval == "auto" else train.eval_interval
    yield "eval_strategy", "steps", ""
    yield "eval_steps", evaluated, "a share of all steps" if evaluated < 1 else ""
    yield "save_steps", evaluated if train.checkpoint_interval == "auto" else train.checkpoint_interval, ""
    yield "save_total_limit", train.keep_last, ""
    yield "logging_steps", 10 if config.log.interval == "auto" else config.log.interval, ""
    if train.compile is True:
        yield "torch_compile", True, ""
    yield "seed", config.seed, ""


def _at_once(config: Config) -> int:
    """Sequences of an evaluation: as said, or those of training, which need more memory each."""
    size = config.train.eval_batch_size
    size = config.train.micro_batch_size if size == "auto" else size
    assert isinstance(size, int), "a plan has chosen it"
    return size


def _length(config: Config, plan: Mapping[str, Any]) -> Iterator[Field]:
    """Steps where the plan knows them; epochs where it cannot, since the data is not there yet."""
    if (steps := _steps(config.train, plan)) is not None:
        yield "max_steps", steps, ""
    elif config.train.epochs is not None:
        yield "num_train_epochs", config.train.epochs, ""
    elif config.train.hours is not None:
        raise ConfigError(
            "how many steps there are is not known",
            where="--emit hf",
            why="TrainingArguments counts steps or epochs, and how many of them the hours hold depends on the speed",
            suggestion="train.max_iters, train.tokens or train.epochs in place of train.hours",
        )


def _steps(train: Train, plan: Mapping[str, Any]) -> int | None:
    steps: int | None = train.max_iters or plan["data"].get("steps")
    return steps


def _precision(train: Train, plan: Mapping[str, Any]) -> Iterator[Field]:
    precision = plan["device"]["precision"] if train.precision == "auto" else train.precision
    yield "bf16", precision == "bf16", ""
    yield "fp16", precision == "fp16", ""
    if precision == "tf32":
        yield "tf32", True, ""


def _optimizer(config: Config) -> Iterator[Field]:
    train = config.train
    if train.optimizer not in OPTIMIZERS:
        raise ConfigError(
            f"train.optimizer: {train.optimizer} cannot be written as TrainingArguments",
            where="--emit hf",
            why="Hugging Face's Trainer has no such optimizer",
            suggestion="train.optimizer=adamw",
        )
    yield "optim", OPTIMIZERS[train.optimizer], ""
    rate = "that of ganeum's mup, which scales it weight by weight; the Trainer does not"
    yield "learning_rate", train.learning_rate, rate if train.parametrization == "mup" else ""
    yield "weight_decay", train.weight_decay, ""
    yield "adam_beta1", train.beta1, ""
    yield "adam_beta2", train.beta2, ""
    yield "max_grad_norm", train.grad_clip, ""


def _schedule(train: Train, plan: Mapping[str, Any]) -> Iterator[Field]:
    """The shape and where it ends; its options have other names for each."""
    lowest = float(f"{train.learning_rate / 10:.6g}") if train.min_learning_rate == "auto" else train.min_learning_rate
    steps = _steps(train, plan)
    if train.schedule == "cosine":
        yield "lr_scheduler_type", "cosine_with_min_lr", ""
        yield "lr_scheduler_kwargs", {"min_lr": lowest}, ""
    elif train.schedule == "constant":
        yield "lr_scheduler_type", "constant_with_warmup", ""
    elif steps is not None:
        yield "lr_scheduler_type", "warmup_stable_decay", ""
        decay = {"num_decay_steps": round(train.decay_share * steps), "decay_type": "linear"}
        yield "lr_scheduler_kwargs", decay | {"min_lr_ratio": float(f"{lowest / train.learning_rate:.6g}")}, ""
    if train.warmup_iters != "auto":
        yield "warmup_steps", train.warmup_iters, ""
    elif steps is not None:
        yield "warmup_steps", min(max(steps // 50, 10), 2_000, steps // 2), "2 % of all"
    else:
        yield "warmup_steps", 0.02, "a share of all steps"
