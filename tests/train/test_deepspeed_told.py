"""What DeepSpeed's engine is told, and what is refused before a run is made. Needs no DeepSpeed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_pairs
import torch
from tiny_corpus import go

from ganeum.config import load
from ganeum.config.schema import Train, Zero
from ganeum.errors import GaneumError, MissingExtra, RunError
from ganeum.hardware import detect
from ganeum.hardware.card import card
from ganeum.plan import execution
from ganeum.train import deepspeed

ENGINE = "train.zero.stage=2"


def test_every_auto_is_filled() -> None:
    """Clipping, precision, offloads and buckets come from our config; the batch is handed over by the step."""
    train = Train(max_iters=1, grad_clip=0.7, optimizer_offload=True, zero=Zero(stage=3, weights_offload=True))
    told = deepspeed.told(train, "bf16", largest=101 * 33)
    assert told == {
        "train_batch_size": 1,
        "train_micro_batch_size_per_gpu": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.7,
        "bf16": {"enabled": True, "check_grad_overflow": True},
        "fp16": {"enabled": False},
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": False,
            "reduce_bucket_size": 3_334,
            "allgather_bucket_size": 3_334,
            "stage3_max_live_parameters": 3_333,
            "stage3_max_reuse_distance": 3_333,
            "offload_optimizer": {"device": "cpu"},
            "offload_param": {"device": "cpu"},
        },
        "zero_force_ds_cpu_optimizer": False,
    }


def test_what_the_file_says_goes_before() -> None:
    """Numbers of its own, and how what is offloaded is kept; of an offload that is not, nothing."""
    options: dict[str, Any] = {
        "zero_optimization": {
            "reduce_bucket_size": 1_000,
            "offload_optimizer": {"pin_memory": False},
            "offload_param": {"pin_memory": True},
        },
        "fp16": {"hysteresis": 1},
    }
    train = Train(max_iters=1, optimizer_offload=True, zero=Zero(stage=2, options=json.dumps(options)))
    told = deepspeed.told(train, "fp16", largest=10)
    assert told["fp16"] == {"enabled": True, "hysteresis": 1}
    zero = told["zero_optimization"]
    assert (zero["reduce_bucket_size"], zero["allgather_bucket_size"]) == (1_000, 10)
    assert zero["offload_optimizer"] == {"device": "cpu", "pin_memory": False}
    assert "offload_param" not in zero


def test_without_the_library_nothing_is_made(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepspeed, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as error:
        go(yaml, ENGINE)
    assert str(error.value) == (
        "MissingExtra: train.zero.stage=2 needs the package deepspeed\n"
        "  try    pip install 'ganeum[deepspeed]', or train.zero.stage=0 for ganeum's own step"
    )
    assert not Path("results").exists()


def test_without_the_library_no_example_is_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making tokens of them may take minutes."""
    yaml = tiny_pairs.config(tiny_pairs.write(here / "data"), here / "t5.yaml")
    monkeypatch.setattr(deepspeed, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra):
        go(yaml, ENGINE)
    assert not Path("cache/examples").exists()


def refused(yaml: Path, *overrides: str) -> GaneumError:
    with pytest.raises(GaneumError) as error:
        go(yaml, ENGINE, *overrides)
    assert not Path("results").exists()
    return error.value


def test_several_processes_are_refused(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the library is looked for, and before there is a directory."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    error = refused(yaml)
    assert isinstance(error, RunError)
    assert error.what == "a run is one process on one device, but 2 were started"


def test_fp16_is_refused_on_a_cpu_without_it(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: False)
    assert refused(yaml, "train.precision=fp16").what == "DeepSpeed's engine does not compute in fp16 on this CPU"


def test_our_own_step_needs_no_library(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is not asked how many processes there are: that is other programs' environment."""
    monkeypatch.setattr(deepspeed, "find_spec", lambda name: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    go(yaml, "train.zero.stage=1", "max_iters=1", "sample.interval=0")
    assert Path("results/tiny/summary.json").exists()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], (0, "none")),
        (["train.zero.stage=2"], (2, "none")),
        (["train.zero.stage=2", "train.optimizer_offload=true"], (2, "optimizer")),
        (["train.zero.stage=3", "train.zero.weights_offload=true"], (3, "optimizer_and_weights")),
    ],
)
def test_the_plan_counts_stage_and_offload(yaml: Path, overrides: list[str], expected: tuple[int, str]) -> None:
    """On a GPU; in a CPU's one memory nothing is offloaded to it."""
    config = load(yaml, overrides)
    way = execution.of(config, card("RTX 4090"), 4)
    assert expected == (way.zero_stage, way.offload)
    assert execution.of(config, detect("cpu"), 4).offload == "none"
