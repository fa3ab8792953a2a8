"""What is written out for DeepSpeed: it takes it, transformers reads it, and both files say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from emitted import CARD, arguments, planned

from ganeum.config import load
from ganeum.hardware.card import card
from ganeum.plan import emit
from ganeum.plan.architecture import find
from ganeum.plan.question.subject import Model
from ganeum.plan.question.use import read

DEEPSPEED: dict[str, tuple[list[str], dict[str, Any]]] = {
    "plain": ([], {}),
    "offload": (["train.optimizer_offload=true"], {}),
    "fp16, stage 1, two GPUs": (["train.precision=fp16"], {"devices": 2, "zero_stage": 1}),
    "everything offloaded": ([], {"offload": "optimizer_and_weights"}),
    "another optimizer": (["train.optimizer=adafactor", "train.optimizer_offload=true"], {}),
}


@pytest.mark.parametrize("case", DEEPSPEED)
def test_deepspeed_is_consistent(case: str) -> None:
    """The batch is micro-batch × accumulation × devices, as DeepSpeed demands, and is the batch of the config."""
    overrides, options = DEEPSPEED[case]
    config, plan = planned(overrides)
    found = json.loads(emit.deepspeed(config, plan, **options))
    assert found["train_batch_size"] == config.train.batch_size
    assert found["train_batch_size"] == (
        found["train_micro_batch_size_per_gpu"] * found["gradient_accumulation_steps"] * options.get("devices", 1)
    )
    assert found["bf16"]["enabled"] + found["fp16"]["enabled"] == 1
    zero = found["zero_optimization"]
    assert zero["stage"] >= (3 if "offload_param" in zero else 1 if "offload_optimizer" in zero else 0)


@pytest.mark.parametrize("case", DEEPSPEED)
def test_deepspeed_takes_it(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed's own config class accepts it, with the stage, the offload and the batch that are meant."""
    pytest.importorskip("deepspeed")
    from deepspeed.runtime.config import DeepSpeedConfig

    overrides, options = DEEPSPEED[case]
    config, plan = planned(overrides)
    written = json.loads(emit.deepspeed(config, plan, **options))
    monkeypatch.setattr("deepspeed.comm.get_rank", lambda *_: 0)
    monkeypatch.setattr("deepspeed.comm.get_world_size", lambda *_: options.get("devices", 1))
    theirs = DeepSpeedConfig(written)
    assert theirs.train_batch_size == config.train.batch_size
    assert theirs.train_micro_batch_size_per_gpu == written["train_micro_batch_size_per_gpu"]
    assert theirs.zero_config.stage == written["zero_optimization"]["stage"]
    offload = theirs.zero_config.offload_optimizer
    told = written["zero_optimization"].get("reduce_bucket_size", 500_000_000)
    assert theirs.zero_config.reduce_bucket_size == told
    assert (offload is not None and offload.device == "cpu") == ("offload_optimizer" in written["zero_optimization"])


@pytest.mark.parametrize(("stage", "buckets"), [(1, 2), (2, 2), (3, 1)])
def test_deepspeeds_buckets_are_those_that_the_memory_counts(stage: int, buckets: int) -> None:
    """DeepSpeed 0.19.8 takes one bucket in stage 3 and, where it overlaps, two in 1 and 2: together no more than the
    largest weight, mT5-large's embedding of 250,112 × 1,024, where its own default is 500 million numbers each."""
    model = Model(find("mt5-large"), read([f"zero_stage={stage}", "devices=2", "batch_size=2"]))
    device = card("A100 SXM4 80GB")
    zero = json.loads(model.emit("deepspeed", model.plan(device), device))["zero_optimization"]
    assert zero["reduce_bucket_size"] * buckets == 250_112 * 1_024
    assert zero["allgather_bucket_size"] == zero["reduce_bucket_size"]
    assert zero.get("stage3_max_live_parameters") == (250_112 * 1_024 if stage == 3 else None)


def test_deepspeeds_buckets_begin_at_even_numbers() -> None:
    """DeepSpeed refuses an allgather_bucket_size that is odd: half of 50,257 × 6 would be."""
    config, plan = planned()
    found = json.loads(emit.deepspeed(config, plan, zero_stage=2, largest=50_257 * 6))
    assert found["zero_optimization"]["allgather_bucket_size"] == 50_257 * 3 - 1
    assert "reduce_bucket_size" not in json.loads(emit.deepspeed(config, plan))["zero_optimization"]


def test_with_adapters_buckets_are_the_adapters() -> None:
    """Of GPT-2 small with adapters of rank 8 the largest tensor that is trained has 8 × 3,072 numbers."""
    model = Model(find("gpt2"), read(["lora.rank=8", "zero_stage=3", "batch_size=2"]))
    zero = json.loads(model.emit("deepspeed", model.plan(CARD), CARD))["zero_optimization"]
    assert zero["reduce_bucket_size"] == 8 * 3_072


@pytest.mark.parametrize("case", DEEPSPEED)
def test_transformers_reads_the_deepspeed_json(case: str) -> None:
    """transformers' HfDeepSpeedConfig sees the same stage and offload."""
    pytest.importorskip("deepspeed")
    from transformers.integrations import HfDeepSpeedConfig

    overrides, options = DEEPSPEED[case]
    config, plan = planned(overrides)
    written = json.loads(emit.deepspeed(config, plan, **options))
    theirs = HfDeepSpeedConfig(written)
    assert theirs.is_zero3() == (written["zero_optimization"]["stage"] == 3)
    assert theirs.is_offload() == ("offload_optimizer" in written["zero_optimization"])


@pytest.mark.parametrize("case", ["plain", "offload", "another optimizer"])
def test_both_files_agree_in_the_trainers_eyes(case: str) -> None:
    """transformers compares TrainingArguments with the DeepSpeed config value by value, and finds no mismatch."""
    pytest.importorskip("deepspeed")
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    overrides, _ = DEEPSPEED[case]
    config, plan = planned(overrides)
    both = HfTrainerDeepSpeedConfig(json.loads(emit.deepspeed(config, plan)))
    both.trainer_config_process(arguments(emit.hugging_face(config, plan)))
    assert both.mismatches == []


ZERO_3 = ["train.zero.stage=3", "train.zero.weights_offload=true", "train.optimizer_offload=true"]


@pytest.mark.parametrize(("overrides", "stage"), [([], 0), (["train.optimizer_offload=true"], 2), (ZERO_3, 3)])
def test_our_own_reading_of_the_deepspeed_json(overrides: list[str], stage: int, tmp_path: Path) -> None:
    """Beside the TrainingArguments, as the Trainer wants it, the JSON loads here: stage, offloads and precision."""
    config, plan = planned(overrides)
    (tmp_path / "ds.json").write_text(emit.deepspeed(config, plan), encoding="utf-8")
    file = tmp_path / "config.yaml"
    file.write_text(emit.hugging_face(config, plan), encoding="utf-8")
    again = load(file, ["deepspeed=" + str(tmp_path / "ds.json")], section="test_run").train
    assert again.optimizer_offload == config.train.optimizer_offload
    assert (again.zero.stage, again.zero.weights_offload) == (stage, config.train.zero.weights_offload)
    assert again.precision == plan["device"]["precision"]
    assert again.batch_size == config.train.batch_size
