"""What settings of Hugging Face's Trainer say: each look at one part of them.

What is not set has transformers' default (version 5: `optim="adamw_torch_fused"`, `dataloader_num_workers=0`,
`dataloader_pin_memory=True`, `eval_strategy="no"`, `eval_steps` as `logging_steps`, `eval_accumulation_steps=None`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ganeum import units
from ganeum.doctor.audit.settings import AMPERE, FEW, MANY_WORKERS, Nothing, Said, Settings, capability
from ganeum.doctor.audit.source import Unknown

SLOW_OPTIMIZERS = {"adamw_torch": "adamw_torch_fused", "adamw_hf": "adamw_torch_fused", "adamw": "adamw_torch_fused"}
TF32 = re.compile(r"matmul\.allow_tf32\s*=\s*True|set_float32_matmul_precision\(.(?!highest)")
# Set by those whose memory is short: then few rows at once are no oversight.
SHORT = ("gradient_checkpointing", "deepspeed", "fsdp", "fsdp_config", "load_in_4bit", "load_in_8bit",
         "quantization_bit")  # fmt: skip
SHORT_TEXT = re.compile(r"gradient_checkpointing_enable|load_in_[48]bit|prepare_model_for_kbit", re.IGNORECASE)
LONG = 1024  # tokens: packed rows of as many fill a GPU one by one
# Learning rates that no weight of a language model bears under AdamW, or that move none under SGD; a prompt, or an
# adapter that is not LoRA, is learnt with others.
LARGE_RATE, SMALL_RATE = 1e-2, 1e-4
ADAM = re.compile(r"(paged_)?adam")
PROMPTS = re.compile(r"prompt|prefix|p_?tuning|bitfit|peft(?!.*lora)", re.IGNORECASE | re.DOTALL)
OFFLOADED = re.compile(r"offload\w*\W+true", re.IGNORECASE)
OFTEN, MANY_EPOCHS, SHORT_RUN = 20, 16, 200


def read(settings: Settings) -> Iterator[Said]:
    """All that these settings say."""
    for look in LOOKS:
        yield from look(settings)


def precision(s: Settings) -> Iterator[Said]:
    """Number formats."""
    least = capability(s.device)
    bf16, fp16 = s.on("bf16"), s.on("fp16")
    seen = all(not isinstance(s.values.get(name), Unknown) for name in ("bf16", "fp16"))
    old = least is not None and least < AMPERE
    if not bf16 and not fp16 and seen and s.complete and s.get("use_cpu") is not True:
        yield s.found(
            "fp32",
            "everything is computed in fp32: neither bf16 nor fp16 is set",
            "bf16",
            "fp16",
            evidence=("the defaults of TrainingArguments are bf16=False and fp16=False",),
            change="fp16=True (this card is older than Ampere)"
            if old
            else "bf16=True (Ampere and later), else fp16=True",
        )
        if not s.is_set("tf32") and not old and not TF32.search(s.text):
            yield s.found(
                "tf32_off",
                "fp32 products without TF32",
                "tf32",
                severity="note",
                evidence=("it is PyTorch's default, and it matters only while bf16 is off",),
                change="tf32=True, where bf16 is not wanted",
            )
    elif s.on("tf32") and (bf16 or fp16):
        yield Nothing(f"tf32=True beside {'bf16' if bf16 else 'fp16'}=True: products are not in fp32 any more")
    if bf16 and old:
        yield s.found(
            "bf16_emulated",
            f"{s.device.name if s.device else 'this card'} has no hardware for bf16",
            "bf16",
            change="fp16=True instead",
            sure="computed",
        )
    if fp16 and not bf16:
        t5 = "t5" in s.text.lower()
        if t5:
            yield s.found(
                "fp16",
                "T5 overflows in fp16",
                "fp16",
                severity="error",
                evidence=("its makers computed in bf16 alone; what comes out may be nan",),
                change="bf16=True, else fp32",
            )
        elif least is not None and not old:
            yield s.found(
                "fp16",
                "fp16 where bf16 costs the same",
                "fp16",
                severity="note",
                evidence=("fp16 ends at 65,504: the loss is scaled, and steps that overflow are left out",),
                change="bf16=True",
            )


def batch(s: Settings) -> Iterator[Said]:
    """How many rows at once, and how often the weights are updated."""
    size, accumulation = s.number("per_device_train_batch_size"), s.number("gradient_accumulation_steps")
    full = s.on("packing") and (s.number("max_length") or 0) >= LONG
    unseen = isinstance(s.values.get("gradient_checkpointing"), Unknown)
    short = next((name for name in SHORT if s.is_set(name) and s.get(name) not in (None, False, "none")), None)
    if size is not None and accumulation is not None and size <= FEW and accumulation > 1 and not full:
        yield s.found(
            "small_micro_batch",
            f"{units.things(round(size), 'row')} at once, {accumulation:.0f} times a step",
            "per_device_train_batch_size",
            evidence=(
                f"{size * accumulation:.0f} rows at once are the same step, if they fit",
                *([f"{short} is set: memory is short"] if short else []),
            ),
            severity="note" if short or unseen or SHORT_TEXT.search(s.text) else "warning",
            change=f"per_device_train_batch_size={2 * size:.0f} with "
            f"gradient_accumulation_steps={max(1, accumulation / 2):.0f}, and so on while it fits",
        )
    elif size is not None and size <= 2 and not s.is_set("gradient_accumulation_steps") and s.complete:
        yield s.found(
            "frequent_update",
            f"an update of all weights for every {size:.0f} rows",
            "per_device_train_batch_size",
            severity="note",
            change="more rows at once where they fit; or gradient_accumulation_steps, with the learning rate for it",
        )
    if s.on("auto_find_batch_size"):
        yield s.found(
            "micro_batch_halved",
            "on out-of-memory the batch is halved, and with it what the model learns with",
            "auto_find_batch_size",
            severity="note",
            change="set a micro-batch that fits, and gradient_accumulation_steps for the rest",
        )
    if s.on("gradient_checkpointing"):
        yield s.found(
            "checkpointing_for_nothing",
            "activations are computed twice",
            "gradient_checkpointing",
            severity="note",
            evidence=("that costs time, and pays only where memory is short or a larger batch comes of it",),
            change="gradient_checkpointing=False, if it fits",
        )
        if s.get("use_cache") is True:
            yield s.found(
                "cache_in_training", "use_cache=True beside checkpointing", "use_cache", change="use_cache=False"
            )


def optimizer(s: Settings) -> Iterator[Said]:
    """Which one, and in which form."""
    name = s.get("optim")
    if name in SLOW_OPTIMIZERS:
        yield s.found(
            "slow_optimizer",
            f'optim="{name}" is not fused',
            "optim",
            severity="note",
            change=f'optim="{SLOW_OPTIMIZERS[name]}" (the default from transformers 5 on)',
        )
    elif name == "adafactor":
        yield s.found(
            "slow_optimizer",
            "Adafactor saves memory and costs time",
            "optim",
            severity="note",
            change='optim="adamw_torch_fused", if its two moments fit (8 bytes a parameter)',
        )


def schedule(s: Settings) -> Iterator[Said]:
    """How long it warms up, and how far an update goes."""
    warm_up, steps, ratio = s.number("warmup_steps"), s.number("max_steps"), s.number("warmup_ratio")
    if warm_up and steps and steps > 0 and warm_up >= steps:
        yield s.found(
            "schedule",
            f"the warm-up of {warm_up:,.0f} steps is as long as the run of {steps:,.0f}",
            "warmup_steps",
            change=f"warmup_steps={max(1, round(steps / 20)):,}",
            severity="error",
            sure="computed",
        )
    elif ratio is not None and ratio >= 1:
        yield s.found(
            "schedule",
            "the warm-up is as long as the run",
            "warmup_ratio",
            evidence=("it is a share of the run's steps",),
            change="warmup_ratio=0.05, or warmup_steps",
            severity="error",
            sure="computed",
        )
    rate = s.number("learning_rate")
    name = str(s.get("optim", "adamw_torch_fused" if s.complete else None)).lower()
    norm = s.number("max_grad_norm") if s.is_set("max_grad_norm") else 1.0
    if rate == 0:
        yield s.found("never_updated", "the learning rate is 0", "learning_rate", severity="error", change="5e-5")
    elif rate is not None and rate >= LARGE_RATE and ADAM.match(name) and not PROMPTS.search(s.text):
        yield s.found(
            "learning",
            f"a learning rate of {rate:g} for AdamW",
            "learning_rate",
            evidence=("AdamW moves every weight by about so much in every update, and most weights are below 0.1",),
            change="5e-5 for all weights of a trained model, 2e-4 for LoRA, 3e-4 for a small fresh model",
        )
    elif rate is not None and rate <= SMALL_RATE and name == "sgd" and norm:
        yield s.found(
            "learning",
            f"a learning rate of {rate:g} for SGD",
            "learning_rate",
            "optim",
            evidence=(
                f"SGD moves by the gradient times it, and the gradient's norm is cut off at {norm:g}: in 10,000 "
                f"updates all weights together move by {10_000 * rate * norm:g} at most",
            ),
            change="1e-2 to 1e-1, or AdamW",
        )


def loading(s: Settings) -> Iterator[Said]:
    """Loader processes."""
    workers = s.number("dataloader_num_workers")
    if workers and workers > MANY_WORKERS:
        yield s.found(
            "oversubscription",
            f"{workers:.0f} loader processes",
            "dataloader_num_workers",
            severity="note",
            evidence=("each has threads of its own, which share the cores",),
            change="2 to 4, and OMP_NUM_THREADS=1",
        )
    if workers and s.get("dataloader_persistent_workers", False) is False and s.complete:
        yield s.found(
            "worker_start",
            "the loader's processes are started anew every epoch",
            "dataloader_num_workers",
            severity="note",
            change="dataloader_persistent_workers=True (Windows, where a start is slow, most of all)",
        )
    if s.get("dataloader_pin_memory") is True:
        yield Nothing("dataloader_pin_memory=True: the default, and token ids are kilobytes")
    elif s.get("dataloader_pin_memory") is False:
        yield Nothing("dataloader_pin_memory=False: token ids are kilobytes, pinned or not")
    if s.get("dataloader_prefetch_factor") == 2:
        yield Nothing("dataloader_prefetch_factor=2: the default")


def often(s: Settings) -> Iterator[Said]:
    """Checkpoints, evaluations, logging."""
    every = s.number("save_steps")
    if every and 1 <= every <= 2 * OFTEN and s.get("save_strategy", "steps") == "steps":
        yield s.found(
            "too_often",
            f"a checkpoint every {units.things(round(every), 'step')}",
            "save_steps",
            evidence=("a checkpoint is weights and the optimizer's state: 12 bytes a parameter to the disk",),
            change="save_steps=500 and more",
        )
    strategy = s.get("eval_strategy", s.get("evaluation_strategy", "no" if s.complete else "steps"))
    said = s.is_set("eval_strategy", "evaluation_strategy")
    by = "logging_steps" if said and not s.is_set("eval_steps") else "eval_steps"
    every = s.number(by)
    if every and 1 <= every <= 2 * OFTEN and strategy == "steps":
        yield s.found(
            "too_often",
            f"an evaluation every {units.things(round(every), 'step')}",
            by,
            evidence=(
                *(["eval_steps is not set, and then it is logging_steps"] if by == "logging_steps" else []),
                "each row is written token by token (predict_with_generate), which takes as many passes as tokens"
                if s.on("predict_with_generate")
                else "an evaluation costs a third of a step for each of its tokens",
            ),
            change="eval_steps=500 and more",
        )
    if (epochs := s.number("num_train_epochs")) and epochs > MANY_EPOCHS:
        yield s.found(
            "repeated_text",
            f"the same text {epochs:.0f} times",
            "num_train_epochs",
            severity="note",
            evidence=("4 times are as good as new text, after 16 little is gained",),
            change="more text, or an end when the held-out loss no longer falls",
        )
    if s.number("logging_steps") == 1:
        yield s.found(
            "sync",
            "logging in every step waits for the GPU every time",
            "logging_steps",
            severity="note",
            change="logging_steps=50",
        )
    if s.complete and strategy == "no" and not s.on("do_eval"):
        yield s.found(
            "no_validation",
            "nothing is evaluated while it trains",
            "eval_strategy",
            severity="note",
            change='eval_strategy="steps" with eval_steps=500 on held-out rows',
        )
    if s.is_set("eval_accumulation_steps"):
        yield s.found(
            "kept_logits",
            "evaluation's logits are moved to the machine's memory, all of them",
            "eval_accumulation_steps",
            severity="note",
            change="preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1)",
        )


def machinery(s: Settings) -> Iterator[Said]:
    """For several GPUs, and for debugging."""
    for name, tool in (("deepspeed", "DeepSpeed"), ("fsdp", "FSDP")):
        value = s.values.get(name)
        if value and "offload" not in str(value) and not (name == "fsdp" and OFFLOADED.search(s.text)):
            yield s.found(
                "data_parallel",
                f"{tool}; on one GPU it costs time unless something is offloaded",
                name,
                severity="note",
                change="without it, where the model fits",
            )
    if s.on("ddp_find_unused_parameters"):
        yield s.found(
            "data_parallel",
            "every step searches for unused parameters",
            "ddp_find_unused_parameters",
            severity="note",
            change="ddp_find_unused_parameters=False",
        )
    every = s.number("torch_empty_cache_steps")
    if every and every <= OFTEN:
        yield s.found(
            "memory_emptied",
            f"the allocator's cache is emptied every {units.things(round(every), 'step')}",
            "torch_empty_cache_steps",
            change="without it: it frees nothing that is in use",
        )
    if s.get("skip_memory_metrics") is False:
        yield s.found(
            "debug_mode", "every allocation of Python's is traced", "skip_memory_metrics", change="without it"
        )
    for name in ("use_cpu", "no_cuda"):
        if s.on(name):
            yield s.found("on_cpu", f"{name}=True trains on the CPU", name, change=f"{name}=False", severity="error")
    debugs = bool(s.get("debug")) and s.get("debug") is not True  # Trainer's is a list of what to look for
    if debugs or s.on("full_determinism"):
        name = "debug" if debugs else "full_determinism"
        yield s.found("debug_mode", f"{name} is on", name, change=f"without {name}")
    steps = s.number("max_steps")
    if s.on("torch_compile") and steps and 0 < steps <= SHORT_RUN:
        yield s.found(
            "compile_start",
            f"compiling for a run of {units.things(round(steps), 'step')}",
            "torch_compile",
            severity="note",
            change="torch_compile=False in trials; in the long run it is worth measuring",
        )
    if s.on("torch_compile") and not s.on("group_by_length") and s.get("padding") in ("longest", True):
        yield s.found(
            "recompiles",
            "compiled code and batches of all lengths",
            "torch_compile",
            severity="note",
            change="pad_to_multiple_of=64, or lengths in a few buckets: measure both",
        )


LOOKS: tuple[Callable[[Settings], Iterator[Said]], ...] = (
    precision,
    batch,
    optimizer,
    schedule,
    loading,
    often,
    machinery,
)
