"""A ds_config.json: who takes the steps, what the engine is told, and what is refused by name. Needs no DeepSpeed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ganeum.config import Config, load, load_stored
from ganeum.config.write import to_yaml
from ganeum.errors import GaneumError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(parts: dict[str, Any], *overrides: str) -> Config:
    Path("ds.json").write_text(json.dumps(parts))
    Path("a.yaml").write_text("max_steps: 3\ndeepspeed: ds.json\n")
    return load("a.yaml", overrides)


def refused(parts: dict[str, Any], *overrides: str) -> str:
    with pytest.raises(GaneumError) as error:
        loaded(parts, *overrides)
    return str(error.value)


# What guides give for stage 3 with everything offloaded; `auto` is what the config says.
GUIDE: dict[str, Any] = {
    "fp16": {
        "enabled": "auto",
        "loss_scale": 0,
        "loss_scale_window": 1000,
        "initial_scale_power": 16,
        "hysteresis": 2,
        "min_loss_scale": 1,
    },
    "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}},
    "zero_optimization": {
        "stage": 3,
        "offload_optimizer": {"device": "cpu", "pin_memory": True},
        "offload_param": {"device": "cpu", "pin_memory": True},
        "overlap_comm": True,
        "contiguous_gradients": True,
        "sub_group_size": 1e9,
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "stage3_max_live_parameters": 1e9,
        "stage3_max_reuse_distance": 1e9,
        "stage3_gather_16bit_weights_on_model_save": True,
    },
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "steps_per_print": 2000,
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "wall_clock_breakdown": False,
}


def test_the_guides_file_asks_for_the_engine() -> None:
    """Its stage and offloads are keys; numbers are kept in DeepSpeed's words, `auto` and what one process has no use
    for are not."""
    train = loaded(GUIDE).train
    assert (train.zero.stage, train.zero.weights_offload, train.optimizer_offload) == (3, True, True)
    assert json.loads(train.zero.options or "") == {
        "fp16": {
            "loss_scale": 0,
            "loss_scale_window": 1000,
            "initial_scale_power": 16,
            "hysteresis": 2,
            "min_loss_scale": 1,
        },
        "zero_optimization": {
            "contiguous_gradients": True,
            "sub_group_size": 1e9,
            "offload_optimizer": {"pin_memory": True},
            "offload_param": {"pin_memory": True},
            "stage3_max_live_parameters": 1e9,
            "stage3_max_reuse_distance": 1e9,
        },
    }


@pytest.mark.parametrize("stage", [0, 1])
def test_below_stage_2_it_is_our_own_step(stage: int) -> None:
    """With the offload that the file says, as ever."""
    train = loaded({"zero_optimization": {"stage": stage, "offload_optimizer": {"device": "cpu"}}}).train
    assert (train.zero.stage, train.zero.options, train.optimizer_offload) == (0, None, True)


def test_what_is_said_names_who_takes_the_steps() -> None:
    for stage, words in ((2, "DeepSpeed's engine takes the steps"), (1, "ganeum's own step, with the offload")):
        said: list[str] = []
        Path("a.yaml").write_text(f"max_steps: 3\ndeepspeed: {{zero_optimization: {{stage: {stage}}}}}\n")
        load("a.yaml", say=said.append)
        assert words in said[0]


def test_old_names_of_the_offload() -> None:
    train = loaded({"zero_optimization": {"stage": 3, "cpu_offload": True, "cpu_offload_param": True}}).train
    assert (train.optimizer_offload, train.zero.weights_offload) == (True, True)


def test_a_run_keeps_it_without_the_file() -> None:
    """config.yaml holds all that the file said: a resumed run does not read it again."""
    config = loaded(GUIDE)
    Path("config.yaml").write_text(to_yaml(config))
    Path("ds.json").unlink()
    assert config == load_stored("config.yaml")


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ({"zero_optimization": {"stage": 2, "zenflow": {}}}, "deepspeed: zero_optimization.zenflow: {} has no meaning"),
        (
            {"zero_optimization": {"stage": 2, "zero_quantized_gradients": True}},
            "deepspeed: zero_optimization.zero_quantized_gradients: true has no meaning",
        ),
        (
            {"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme", "nvme_path": "/d"}}},
            "deepspeed: zero_optimization.offload_param cannot be on nvme here",
        ),
        (
            {"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}},
            "deepspeed: zero_optimization.offload_param has no meaning in stage 2",
        ),
        (
            {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu", "ratio": 0.5}}},
            "deepspeed: zero_optimization.offload_optimizer.ratio: 0.5 has no meaning",
        ),
        (
            {"zero_optimization": {"stage": 2, "reduce_bucket_size": "large"}},
            'deepspeed: zero_optimization.reduce_bucket_size: "large" has no meaning',
        ),
        (
            {"zero_optimization": {"stage": 2}, "bf16": {"enabled": True, "bf16_master_weights_and_grads": True}},
            "deepspeed: bf16.bf16_master_weights_and_grads: true has no meaning",
        ),
        (
            {"zero_optimization": {"stage": 2}, "fp16": {"enabled": True, "fp16_master_weights_and_grads": True}},
            "deepspeed: fp16.fp16_master_weights_and_grads: true has no meaning",
        ),
        ({"zero_optimization": {"stage": 2}, "compression_training": {}}, "deepspeed: compression_training has no"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(parts: dict[str, Any], what: str) -> None:
    assert what in refused(parts)


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("train.optimizer=adafactor", "train.optimizer is adafactor, and train.zero.stage 2"),
        ("train.optimizer=adamw8bit", "train.optimizer is adamw8bit, and train.zero.stage 2"),
        ("train.weights=bf16", "train.weights is bf16, and train.zero.stage 2"),
        ("train.compile=true", "train.compile is true, and train.zero.stage 2"),
        ("device=mps", "device is mps, and train.zero.stage 2"),
        ("train.zero.weights_offload=true", "train.zero.weights_offload is true, and train.zero.stage 2"),
        ("train.zero.options=[1]", "train.zero.options"),
        ("train.zero.options={}x", "train.zero.options is no JSON"),
        (
            'train.zero.options=\'{"zero_optimization": {"stage": 3}}\'',
            "says zero_optimization.stage, which means noth",
        ),
        ('train.zero.options=\'{"fp16": {"loss_scale": "x"}}\'', 'says fp16.loss_scale: "x"'),
    ],
)
def test_what_the_engine_does_not_take_is_refused_before_the_start(override: str, what: str) -> None:
    assert what in refused({"zero_optimization": {"stage": 2}}, override)


def test_adapters_are_refused() -> None:
    said = refused({"zero_optimization": {"stage": 2}}, "train.lora.rank=4", "train.init_from=somewhere")
    assert said == (
        "ConfigError: train.lora.rank is 4, and train.zero.stage 2\n"
        "  where  a.yaml, line 2\n"
        "         the command line: train.lora.rank=4\n"
        "  why    DeepSpeed's engine does not take that: what it saves is the state of weights that are trained\n"
        "  try    train.lora.rank: null, or train.zero.stage: 0"
    )
