"""YAML files of other tools are read by their own keys, and what they say is told in them."""

from __future__ import annotations

import pytest

from ganeum.doctor import audit
from ganeum.doctor.audit import foreign
from ganeum.doctor.finding import Finding

AXOLOTL = """
base_model: NousResearch/Llama-3.2-1B
datasets:
  - path: some/texts
    type: alpaca
val_set_size: 0.05
sequence_len: 2048
sample_packing: true
micro_batch_size: 1
gradient_accumulation_steps: 8
num_epochs: 1
optimizer: adamw_torch_fused
bf16: auto
attn_implementation: flash_attention_2
logging_steps: 20
deepspeed:
"""
FACTORY = """
model_name_or_path: Qwen/Qwen3-4B
stage: sft
do_train: true
finetuning_type: lora
cutoff_len: 2048
val_size: 0.1
per_device_train_batch_size: 8
gradient_accumulation_steps: 2
bf16: true
"""
TORCHTUNE = """
model:
  _component_: torchtune.models.qwen2_5.qwen2_5_0_5b
tokenizer:
  max_seq_len: 2048
dataset:
  _component_: torchtune.datasets.alpaca_dataset
  packed: true
batch_size: 2
gradient_accumulation_steps: 8
epochs: 1
optimizer:
  _component_: torch.optim.AdamW
  fused: true
compile: true
device: cuda
dtype: bf16
log_every_n_steps: 20
profiler:
  enabled: false
  warmup_steps: 3
"""
LITGPT = """
precision: bf16-mixed
devices: 1
train:
  save_interval: 1000
  global_batch_size: 64
  micro_batch_size: 16
  max_steps: 2000
  lr_warmup_steps: 100
eval:
  interval: 500
  max_iters: 100
"""
FILES = {"axolotl": AXOLOTL, "LLaMA-Factory": FACTORY, "torchtune": TORCHTUNE, "litgpt": LITGPT}

# File, what is written in place of what → the cause, and a piece of what is told.
FAULTS = [
    ("axolotl", "sample_packing: true", "pad_to_sequence_len: true", "padding", "filled up to 2048 tokens"),
    ("axolotl", "sample_packing: true", "sample_packing: false", "padding", "sample_packing=False"),
    ("axolotl", "flash_attention_2", "eager", "eager_attention", "attn_implementation=eager"),
    ("axolotl", "flash_attention_2", "eager", "wrong_mask", "packed texts see each other"),
    ("axolotl", "adamw_torch_fused", "adamw_torch", "slow_optimizer", 'optimizer="adamw_torch_fused"'),
    ("axolotl", "sequence_len: 2048", "sequence_len: 256", "small_micro_batch", "micro_batch_size=2"),
    ("axolotl", "num_epochs: 1", "num_epochs: 30", "repeated_text", "num_epochs=30"),
    ("axolotl", "bf16: auto", "bf16: false", "fp32", "bf16=False"),
    ("axolotl", "val_set_size: 0.05", "val_set_size: 0", "no_validation", "val_set_size=0"),
    ("LLaMA-Factory", "bf16: true", "bf16: true\nflash_attn: disabled", "eager_attention", "flash_attn=auto"),
    ("LLaMA-Factory", "bf16: true", "bf16: true\npacking: true", "wrong_mask", "neat_packing=true"),
    ("LLaMA-Factory", "bf16: true", "pure_bf16: true", "pure_half", "pure_bf16=True"),
    ("LLaMA-Factory", "batch_size: 8", "batch_size: 1", "small_micro_batch", "1 row at once"),
    ("LLaMA-Factory", "val_size: 0.1", "max_samples: 10", "no_validation", "val_size is not set"),
    ("torchtune", "packed: true", "packed: false", "padding", "dataset.packed=False"),
    ("torchtune", "fused: true", "lr: 1e-4", "slow_optimizer", "optimizer.fused=true"),
    ("torchtune", "compile: true", "compile: false", "not_compiled", "compile=False"),
    ("torchtune", "device: cuda", "device: cpu", "on_cpu", "device=cuda"),
    ("torchtune", "dtype: bf16", "dtype: fp32", "fp32", "dtype=bf16"),
    ("torchtune", "enabled: false", "enabled: true", "debug_mode", "profiler.enabled=True"),
    ("torchtune", "log_every_n_steps: 20", "log_every_n_steps: 1", "sync", "log_every_n_steps=50"),
    ("litgpt", "bf16-mixed", "32-true", "fp32", "precision=bf16-mixed"),
    ("litgpt", "bf16-mixed", "bf16-true", "pure_half", "precision=bf16-true"),
    ("litgpt", "micro_batch_size: 16", "micro_batch_size: 2", "small_micro_batch", "32 times a step"),
    ("litgpt", "warmup_steps: 100", "warmup_steps: 2000", "schedule", "train.lr_warmup_steps=100"),
    ("litgpt", "save_interval: 1000", "save_interval: 10", "too_often", "train.save_interval=10"),
]


def looked(text: str) -> dict[str, Finding]:
    report = audit.report(foreign.read(foreign.settings(text, "their.yaml")), "their.yaml")
    return {one.cause: one for one in report.findings}


@pytest.mark.parametrize("tool", FILES)
def test_a_file_without_a_fault_has_nothing_to_change(tool: str) -> None:
    """Not even a note: one packed row of 2,048 tokens is enough, and a profiler's warm-up is none of the run's."""
    assert {} == looked(FILES[tool])


@pytest.mark.parametrize(("tool", "old", "new", "cause", "told"), FAULTS)
def test_a_fault_is_told_in_the_tools_own_words(tool: str, old: str, new: str, cause: str, told: str) -> None:
    """With the line that it stands in, where there is one."""
    assert old in FILES[tool]
    finding = looked(FILES[tool].replace(old, new))[cause]
    assert told in finding.text()
    assert (finding.where or "their.yaml, line").startswith("their.yaml, line")


def test_an_evaluation_costs_its_forward_passes() -> None:
    """100 batches of 16 rows every 5 steps of 64: 1,600 against three times 320, 62.5 % of the time."""
    assert looked(LITGPT.replace("interval: 500", "interval: 5"))["too_often"].size == pytest.approx(0.625)


def test_few_rows_are_no_alarm_where_memory_is_short() -> None:
    """Checkpointing, also where it is the tool's default, says so."""
    short = AXOLOTL.replace("sample_packing: true", "").replace(
        "bf16: auto", "bf16: auto\ngradient_checkpointing: true"
    )
    assert looked(AXOLOTL.replace("sample_packing: true", ""))["small_micro_batch"].is_alarm
    assert not looked(short)["small_micro_batch"].is_alarm
    few = FACTORY.replace("batch_size: 8", "batch_size: 1")
    assert not looked(few)["small_micro_batch"].is_alarm
    assert looked(few + "disable_gradient_checkpointing: true\n")["small_micro_batch"].is_alarm


def test_a_value_that_is_a_list_is_no_traceback() -> None:
    """`optim:` of nanoT5's is a section of its own."""
    assert {} == looked("optim:\n  - name: adamw\n    lr: 1\nlogging_steps: 50\ndebug: true\n")
