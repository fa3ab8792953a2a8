"""Which remedies follow from which facts, on devices that need not be here."""

from __future__ import annotations

from typing import Any

import pytest

from ganeum.config import Config
from ganeum.config.schema import Data, Model, Train
from ganeum.doctor.causes import causes
from ganeum.doctor.measured import remedies

CPU: dict[str, Any] = {
    "ours": False, "device": "cpu", "device_name": "a CPU", "capability": None, "bf16": False, "cores": 4,
    "physical_cores": 4, "bound_cores": 4, "all_cores": 4, "environment": {}, "cannot_compile": None, "threads": 4,
    "load": 0.5,
    "parameters": 1_000_000, "dtypes": ["float32"], "theirs": True, "attention": ["sdpa"], "reads": [],
    "vocabulary": 50_257, "checkpointing": False, "compiled": False, "hooks": 0, "matmul_precision": "highest",
    "mkldnn": True, "sdpa_replaced": False, "optimizer": "AdamW", "optimizers": 1, "has_fused": True, "fused": True,
    "foreach": None, "not_updated": 0, "loader": "list", "shapes": [(8, 64)], "one_shape": False, "rows": 8,
    "empty_columns": 0.0, "padding": 0.0, "masks": False, "full_masks": False, "step_s": 0.1, "data_share": 0.001,
    "families": {}, "page_faults": 0.0, "forwards": 1.0, "extra_forwards": 0.0, "extra_forwards_share": 0.0,
    "checkpoints": 0.0, "pauses_share": 0.0, "outputs": [], "autocast": None, "anomaly": False,
    "deterministic": False, "profiler": False, "traced": False, "kernels_off": [], "reads_asked": [],
}  # fmt: skip
GPU = {**CPU, "device": "cuda", "bf16": True, "capability": (8, 0)}


def names(facts: dict[str, Any], **more: Any) -> list[str]:
    found = remedies.of_training({**facts, **more})
    assert all(one.cause in causes() for one in found)
    assert all(one.change for one in found)
    return [one.name for one in found]


def test_each_device_gets_what_its_hardware_has() -> None:
    """Ampere: bf16 and TF32; a V100 or a T4: fp16, as a bound; older ones and plain CPUs neither."""
    assert names(GPU) == ["bf16", "compiled", "TF32", "vocabulary × 64"]
    assert names(GPU, bf16=False, capability=(7, 5), vocabulary=512) == ["fp16", "compiled"]
    assert names(GPU, bf16=False, capability=(6, 1), vocabulary=512, cannot_compile="a newer GPU") == []
    assert names(CPU) == ["compiled"]
    assert names(CPU, bf16=True) == ["bf16", "compiled"]
    (fp16,) = (one for one in remedies.of_training({**GPU, "bf16": False, "capability": (7, 5)}) if one.name == "fp16")
    assert fp16.bound


def test_formats_that_are_emulated_are_left() -> None:
    """bf16 by autocast on a device without hardware for it; with it nothing is said."""
    assert "fp32" in names(GPU, autocast="bfloat16", bf16=False, capability=(7, 5))
    assert "fp32" in names(CPU, autocast="bfloat16")
    assert "fp32" not in names(GPU, autocast="bfloat16")
    assert "fp32" not in names(GPU, autocast="float16", bf16=False, capability=(7, 5))
    assert names(GPU, autocast="bfloat16", vocabulary=512) == ["compiled"]


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"threads": 32}, "4 threads"),
        ({"threads": 1}, "4 threads"),
        ({"bound_cores": 1, "cores": 1, "physical_cores": 1, "threads": 1}, "4 cores"),
        ({"environment": {"ATEN_CPU_CAPABILITY": "default"}}, "without ATEN_CPU_CAPABILITY"),
        ({"anomaly": True}, "debugging off"),
        ({"traced": True}, "debugging off"),
        ({"mkldnn": False}, "all fast kernels"),
        ({"dtypes": ["float16"]}, "fp32 weights"),
        ({"pauses_share": 0.1}, "no pauses of Python"),
        ({"data_share": 0.4}, "batches held in memory"),
        ({"data_share": 0.4, "loader_workers": 0, "loader_stays": False}, "workers that stay"),
        ({"loader_workers": 64, "loader_stays": True}, "fewer workers"),
        ({"padding": 0.4}, "rows of like length"),
        ({"one_shape": True}, "2 batches in one"),
        ({"page_faults": 40_000.0}, "freed memory kept"),
        ({"not_updated": 1_000}, "no idle gradients"),
        ({"families": {"emptying": {"calls": 1, "share": 0.1, "data_share": 0.0}}}, "no empty_cache()"),
        (
            {"families": {"tokenising": {"calls": 8, "share": 0.6, "data_share": 0.6}}, "data_share": 0.7},
            "tokenised before",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fact_leads_to_its_remedy(more: dict[str, Any], name: str) -> None:
    """And without it there is none of that name."""
    assert name in names(CPU, **more)
    assert name not in names(CPU)


def test_a_crowded_machine_gets_no_more_threads() -> None:
    """They would wait for each other; fewer than there are, it does get."""
    assert "4 threads" not in names(CPU, threads=1, load=6.0)
    assert "4 threads" in names(CPU, threads=32, load=40.0)


def test_what_runs_in_the_loader_is_the_loader_s() -> None:
    """Sleeping, printing or collecting while a batch is fetched is no work of the step."""
    asleep = {"families": {"sleeping": {"calls": 1, "share": 0.5, "data_share": 0.5}}, "data_share": 0.5}
    assert "no sleeping" not in names(CPU, **asleep)
    assert "batches held in memory" in names(CPU, **asleep)
    asleep["families"]["sleeping"]["data_share"] = 0.0  # type: ignore[index]
    assert "no sleeping" in names(CPU, **asleep)


def test_the_gravest_comes_first() -> None:
    """Half of the time in gc.collect() before what usually gains a tenth; what changes the learning later."""
    collecting = {"families": {"collecting": {"calls": 1, "share": 0.9, "data_share": 0.0}}}
    found = names(CPU, **collecting, fused=False, bf16=True, one_shape=True, rows=2)
    assert found[0] == "no gc.collect()"
    assert found.index("bf16") < found.index("2 batches in one") < found.index("4 batches in one")


def test_compiling_pays_from_a_step_on() -> None:
    """30 s of start, a tenth of a second a step: 300 steps; never, where nothing is saved."""
    assert remedies.pays_from(30.0, 0.4, 0.3) == 300
    assert remedies.pays_from(30.0, 0.3, 0.3) is None


def test_keys_of_a_run_on_a_gpu() -> None:
    """Precision, compiling, recomputation, offloading, each by one key; another optimizer changes the learning."""
    train = Train(
        max_iters=10, batch_size=64, micro_batch_size=2, precision="fp32", compile=False, loss_chunk=16,
        activation_checkpointing="whole", optimizer_offload=True, optimizer="adafactor", expandable_segments=False,
    )  # fmt: skip
    config = Config(model=Model(vocab_size=512), data=Data(stride=8), train=train, device="cuda:0")
    facts = {**GPU, "ours": True, "decided": config.model_dump(), "planned_at_once": 64}
    found = {one.name: one for one in remedies.of_config(config, facts)}
    assert all(one.cause in causes() for one in found.values())
    assert {name: dict(one.keys) for name, one in found.items()} == {
        "bf16": {"train.precision": "bf16"},
        "TF32": {"train.precision": "tf32"},
        "64 at once": {"train.micro_batch_size": 64},
        "4 at once": {"train.micro_batch_size": 4},
        "nothing recomputed": {"train.activation_checkpointing": "none"},
        "optimizer on the GPU": {"train.optimizer_offload": False},
        "loss_chunk": {"train.loss_chunk": "auto"},
        "compiled": {"train.compile": True},
        "AdamW in fp32": {"train.optimizer": "adamw", "train.weights": "fp32"},
        "expandable segments": {"train.expandable_segments": "auto"},
    }
    assert [name for name, one in found.items() if not one.same_learning] == ["AdamW in fp32"]


def test_examples_that_are_padded_are_packed_where_auto_would() -> None:
    """Rows half empty: packed first where the run would pack by itself, buckets first elsewhere, and only they where a
    model cannot pack; rows padded to the longest there could be are told without a measurement."""
    config = Config(
        model=Model(source="t5"), data=Data(train="pairs.jsonl", batching="fixed"), train=Train(micro_batch_size=8)
    )
    facts = {**CPU, "ours": True, "decided": config.model_dump(), "padding": 0.5, "packable": True}

    def ways(**more: Any) -> list[Any]:
        found = remedies.of_config(config, {**facts, **more})
        return [one.keys["data.batching"] for one in found if one.cause == "padding"]

    assert ways(packed_by_itself=True) == ["packed", "buckets"]
    assert ways(packed_by_itself=False) == ["buckets", "packed"]
    assert ways(packed_by_itself=False, packable=False) == ["buckets"]
    (finding,) = remedies.told(facts, config)
    assert (finding.cause, finding.interval) == ("padding", (0.0, 0.5))
    assert remedies.told({**facts, "padding": 0.1}, config) == []


def test_no_key_contradicts_the_rest_of_a_config() -> None:
    """Compiling is no remedy beside DeepSpeed's engine, TF32 and fp32 none where weights are kept in bf16; the engine
    is left together with what only it can do."""
    zero: Any = {"stage": 3, "weights_offload": True}
    told: dict[str, Any] = {"micro_batch_size": 64, "batch_size": 64, "compile": False}
    config = Config(model=Model(vocab_size=512), train=Train(max_iters=10, precision="fp32", zero=zero, **told))
    facts = {**GPU, "ours": True, "decided": config.model_dump()}
    found = {one.name: dict(one.keys) for one in remedies.of_config(config, facts)}
    assert found["without DeepSpeed"] == {"train.zero.stage": 0, "train.zero.weights_offload": False}
    assert "compiled" not in found
    config = Config(model=Model(vocab_size=512), train=Train(max_iters=10, precision="bf16", weights="bf16", **told))
    facts = {**facts, "bf16": False, "decided": config.model_dump()}
    assert not {"fp32", "fp16", "TF32"} & {one.name for one in remedies.of_config(config, facts)}
