"""A calibrated machine's step is amounts of work times rates; the amounts are counted by hand here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ganeum.config.schema import Lora, Model
from ganeum.hardware import rates
from ganeum.hardware.device import Device
from ganeum.hardware.rates import Rates
from ganeum.plan import time
from ganeum.plan.architecture import ours
from ganeum.plan.execution import Execution
from ganeum.plan.time import loads, measured

CPU = Device("a CPU", "cpu", 16, 12, peak_flops_per_second={"fp32": 1e11}, bf16_unit="AMX")
MEASURED = json.loads((Path(__file__).parents[2] / "benchmarks/results/operators-cpu.json").read_text())
SMALL = ours.architecture(Model(n_layer=3, n_head=2, n_embd=64, block_size=128), 1000)
MODERN = ours.architecture(Model(style="modern", n_layer=2, n_head=4, n_kv_head=2, n_embd=128, block_size=96), 300)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def run(**given: Any) -> Execution:
    """Five sequences of 128 tokens at once in fp32."""
    return Execution(
        **({"micro_batch_size": 5, "length": 128, "kind": "cpu", "precision": "fp32", "loss_chunk": 512} | given)
    )


def total(found: list[loads.Load], kind: str, group: str = "") -> float:
    """Of one kind of work in a step."""
    return sum(load.times * load.amounts.get(kind, 0.0) for load in found if group in load.group)


def test_products_are_counted_once_forward_and_once_backward() -> None:
    """12 C² weights a layer, 2 FLOP each and token; the rate of `backward` knows that it does twice as much."""
    found = loads.of(SMALL, run())
    once = 2 * 5 * 128 * 3 * 12 * 64**2
    assert total(found, "flops", "forward") == once
    assert total(found, "flops", "backward") == once
    assert total(found, "flops", "loss") == 3 * 2 * 5 * 128 * 64 * 1024  # 1,000 tokens in 1,024 rows
    assert measured.flops(found) == 3 * once + total(found, "flops", "loss") + 3 * total(
        found, "square flops", "forward"
    )


def test_attention_computes_blocks_of_64_queries() -> None:
    """128 tokens in two blocks: the first sees 64 keys, the second 128, so 3/4 of the square; without blocks, all."""
    found = loads.of(SMALL, run())
    assert total(found, "square", "forward") == 3 * 5 * 2 * 128 * 128 * 3 / 4
    assert total(found, "square flops", "forward") == 3 * 5 * 2 * 128 * 128 * 3 / 4 * 4 * 32
    assert total(found, "turns", "forward") == 3 * 2
    dropped = loads.of(replace(SMALL, dropout=0.1), run())
    assert total(dropped, "square", "forward") == 3 * 5 * 2 * 128 * 128
    assert {"fp32 plain dropped attention forward", "dropout"} <= {load.group for load in dropped}


def test_recomputed_halves_run_forward_once_more() -> None:
    """`selective` the MLP without its last product (4 C² of 8), `whole` the attention besides."""
    none, selective, whole = (loads.of(SMALL, run(checkpointing=mode)) for mode in ("none", "selective", "whole"))
    extra = 2 * 5 * 128 * 3 * 64**2
    assert total(selective, "flops", "forward") - total(none, "flops", "forward") == 4 * extra
    assert total(whole, "flops", "forward") - total(none, "flops", "forward") == 8 * extra
    assert total(whole, "calls", "attention forward") == 2 * total(none, "calls", "attention forward")
    assert total(selective, "calls", "attention forward") == total(none, "calls", "attention forward")


def test_accumulation_repeats_all_but_the_update() -> None:
    """Three micro-batches: each load thrice, gradients added twice, one update."""
    one, three = loads.of(SMALL, run()), loads.of(SMALL, run(accumulation=3))
    assert total(three, "flops") == 3 * total(one, "flops")
    weights = 3 * 12 * 64**2 + 1000 * 64 + 128 * 64
    assert total(three, "weights", "accumulate") == 2 * weights
    assert total(three, "weights", "update adamw") == total(one, "weights", "update adamw") == weights


def test_muon_makes_queries_keys_and_values_orthogonal_apart() -> None:
    """Five Newton–Schulz steps: x xᵀ, its square, and that times x; for n × n matrices 6 n³ FLOP each step."""
    architecture = ours.architecture(Model(n_layer=1, n_head=2, n_embd=64, block_size=8, intermediate_size=64), 64)
    found = loads.update(architecture, run(optimizer="muon"))
    assert found.group == "fp32 update muon"
    assert found.amounts["flops"] == (3 + 1 + 2) * 5 * 6 * 64**3


@pytest.mark.parametrize("architecture", [SMALL, MODERN], ids=["gpt2", "modern"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "tf32"])
def test_a_step_is_amounts_times_rates(architecture: Any, precision: Any) -> None:
    """With one rate for every unit of a kind, seconds are sums of amounts, and tf32 is fp32 on a CPU."""
    way = run(precision=precision)
    found = loads.of(architecture, way)
    each = {"calls": 1e-5, "flops": 1e-11, "logits": 1e-9, "numbers": 0.0, "weights": 0.0}
    rates.remember("a CPU", 1, Rates("2026-11-21", {load.group: each for load in found}, 0.0))
    step = time.of(architecture, way, CPU)
    assert step is not None
    assert step.source == "calibrated on this machine 2026-11-21"
    expected = sum(total(found, kind) * rate for kind, rate in each.items())
    assert step.step_s == pytest.approx(expected)
    assert step.step_s == pytest.approx(sum(step.parts.values()))
    assert step.parts["matmul"] == pytest.approx(1e-11 * (total(found, "flops") - total(found, "flops", "loss")))
    assert step.low == pytest.approx(0.83 * expected)
    assert step.high == pytest.approx(1.2 * expected)
    assert all(load.group.startswith(("fp32", "bf16", "embedding", "step", "update")) for load in found)


def test_what_is_akin_has_wider_bounds() -> None:
    """Adapters, and a context beyond the own attention kernel, run other modules than those that were measured."""
    long = ours.architecture(Model(n_layer=3, n_head=2, n_embd=64, block_size=2048), 1000)
    groups = [load.group for load in [*loads.of(SMALL, run()), *loads.of(SMALL, run(lora=Lora(rank=4)))]]
    rates.remember("a CPU", 1, Rates("2026-11-21", {group: {"calls": 1e-5} for group in groups}, 0.0))
    for architecture, way in ((SMALL, run(lora=Lora(rank=4))), (long, run(length=2048))):
        step = time.of(architecture, way, CPU)
        assert step is not None
        assert (step.low, step.high) == pytest.approx((0.6 * step.step_s, 1.6 * step.step_s))


def test_a_disturbed_calibration_is_told() -> None:
    """Where the rates do not explain their own measurements, bounds are wider and the source says what to type."""
    groups = [load.group for load in loads.of(SMALL, run())]
    rates.remember("a CPU", 1, Rates("2026-11-21", {group: {"calls": 1e-5} for group in groups}, 0.43))
    step = time.of(SMALL, run(), CPU)
    assert step is not None
    assert step.source == "calibrated on this machine 2026-11-21, beside other work: ganeum gpus --measure again"
    assert (step.low, step.high) == pytest.approx((0.6 * step.step_s, 1.6 * step.step_s))


def test_rates_of_zero_are_no_calibration() -> None:
    """No step takes no time: what a damaged file says of these modules is not believed."""
    zeros = {load.group: {"calls": 0.0} for load in loads.of(SMALL, run())}
    rates.remember("a CPU", 1, Rates("2026-11-21", zeros | {"another": {"calls": 1.0}}, 0.0))
    step = time.of(SMALL, run(), CPU)
    assert step is not None
    assert step.source == time.PEAK_ALONE


def test_a_calibrated_gpu_that_compiles_keeps_its_calibration() -> None:
    """A quarter less than what was measured, as the choice to compile expects, and says so."""
    gpu, way = Device("a GPU", "cuda", 8, 8), run(kind="cuda")
    rates.remember(
        "a GPU", None, Rates("2026-11-21", {one.group: {"calls": 1e-5} for one in loads.of(SMALL, way)}, 0.0)
    )
    eager, compiled = time.of(SMALL, way, gpu), time.of(SMALL, replace(way, compiled=True), gpu)
    assert eager is not None
    assert compiled is not None
    assert compiled.step_s == pytest.approx(0.75 * eager.step_s)
    assert compiled.source == ("calibrated on this machine 2026-11-21, less 25% for compiling, which was not measured")
    assert (compiled.low, compiled.high) == pytest.approx((0.6 * compiled.step_s, 1.6 * compiled.step_s))


def test_an_uncalibrated_cpu_has_a_rough_guess() -> None:
    """From its peak: bounds a factor of five apart, and what to type; without a peak there is none."""
    step = time.of(SMALL, run(), CPU)
    assert step is not None
    assert step.source == ("this CPU's peak alone: a rough guess; ganeum gpus --measure calibrates it in half a minute")
    assert step.parts["matmul"] == pytest.approx(measured.flops(loads.of(SMALL, run())) / (0.4 * 1e11))
    assert step.high == pytest.approx(5 * step.low)
    assert time.of(SMALL, run(precision="bf16"), CPU) is None


@pytest.mark.parametrize("row", MEASURED["rows"], ids=lambda row: f"{row['operators']:.0f} operators")
def test_a_step_that_is_nothing_but_starts_has_a_time(row: dict[str, Any]) -> None:
    """Steps of 32 tokens that took an AMD EPYC 1.7 to 28 ms lie within the bounds of an uncalibrated CPU's guess,
    most of which is starting operators."""
    case = row["case"]
    shape = {"style": case["style"], "n_layer": case["layers"], "n_head": case["heads"], "n_embd": case["width"]}
    model = Model(**shape, block_size=case["context"], dropout=case["dropout"])
    same = {name: case[name] for name in ("precision", "optimizer", "accumulation")}
    way = run(micro_batch_size=case["micro"], length=case["context"], **same)
    cpu = replace(CPU, peak_flops_per_second={"fp32": 1e11, "bf16": 2e11})
    step = time.of(ours.architecture(model, case["vocabulary"]), way, cpu)
    assert step is not None
    assert step.low < row["step_s"] < step.high
    assert step.parts["launches"] > 0.8 * step.step_s


def test_a_group_that_was_not_measured_falls_back() -> None:
    """fp16 on a CPU calibrated in fp32: its peak is asked, and where that is unknown too there is no time."""
    groups = [load.group for load in loads.of(SMALL, run())]
    rates.remember("a CPU", 1, Rates("2026-11-21", {group: {"calls": 1e-5} for group in groups}, 0.0))
    assert time.of(SMALL, run(), CPU) is not None
    assert time.of(SMALL, run(precision="fp16"), CPU) is None


def test_an_evaluation_is_a_forward_pass_and_the_loss() -> None:
    """No backward pass, no update, nothing that holds a step together; each layer's halves once."""
    found = loads.of(SMALL, run(purpose="evaluation", accumulation=3))
    groups = {"fp32 plain attention forward", "fp32 plain mlp forward", "embedding forward", "fp32 loss evaluation"}
    assert {load.group for load in found} == groups
    assert total(found, "calls", "mlp") == 3
