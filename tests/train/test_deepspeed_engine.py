"""DeepSpeed's own engine on a CPU, one process over gloo: ZeRO-2 and 3, with and without what they offload."""

from __future__ import annotations

import gc
import json
import math
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiny_pairs
import torch
from safetensors.torch import load_file
from tiny_corpus import go, metrics
from torch import Tensor

from ganeum.cli import main
from ganeum.config.schema import Model, Train, Zero
from ganeum.data.batch import WindowBatch
from ganeum.models import checkpointing
from ganeum.models.gpt import GPT
from ganeum.models.weights import restore
from ganeum.step.optimizer_step import OptimizerStep

pytestmark = pytest.mark.skipif(find_spec("deepspeed") is None, reason="the extra deepspeed is not installed")

OFFLOADS: dict[str, dict[str, Any]] = {
    "2": {"zero": Zero(stage=2)},
    "2, optimizer": {"zero": Zero(stage=2), "optimizer_offload": True},
    "3": {"zero": Zero(stage=3)},
    # small enough a threshold that every weight is put away between its uses
    "3, optimizer and weights": {
        "zero": Zero(
            stage=3,
            weights_offload=True,
            options='{"zero_optimization": {"stage3_param_persistence_threshold": 0}}',
        ),
        "optimizer_offload": True,
    },
}
MODEL = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16, "vocab_size": 101}


def gpt(style: str = "gpt2", level: checkpointing.Mode = "none") -> GPT:
    torch.manual_seed(0)
    model = GPT(Model(**MODEL, style=style))
    checkpointing.apply(model.blocks, level)
    return model


def settings(offload: str = "2", **more: Any) -> Train:
    return Train(max_iters=10, grad_clip=0.5, **OFFLOADS[offload], **more)


def engine(train: Train, model: GPT | None = None, **more: Any) -> Any:
    from ganeum.train.deepspeed import EngineStep

    return EngineStep(model or gpt(), train, "cpu", **more)


def batch(step: int, sequences: int = 7) -> WindowBatch:
    draw = torch.Generator().manual_seed(step)
    windows = torch.randint(0, 101, (sequences, 17), generator=draw)
    return WindowBatch(windows[:, :-1].contiguous(), windows[:, 1:].contiguous())


def taken(step: OptimizerStep, steps: int, first: int = 0) -> list[tuple[float, float]]:
    """Losses and norms of so many steps, three sequences at once of seven: the last micro-batch is smaller."""
    results = [step.on(batch(n), step=n, learning_rate=3e-3, at_once=3) for n in range(first, first + steps)]
    return [(result.loss.item(), result.grad_norm.item()) for result in results]


def close(expected: list[tuple[float, float]]) -> list[Any]:
    return [pytest.approx(pair, rel=1e-5) for pair in expected]


@pytest.mark.parametrize("level", ["none", "whole"])
@pytest.mark.parametrize("style", ["gpt2", "modern"])
@pytest.mark.parametrize("offload", OFFLOADS)
def test_losses_and_norms_are_those_of_our_own_step(offload: str, style: str, level: checkpointing.Mode) -> None:
    """Six steps in fp32, clipped, of micro-batches that differ in size: within 1e-5 of OptimizerStep's, and so are an
    evaluation and the weights in the end."""
    own = OptimizerStep(gpt(style, level), Train(max_iters=10, grad_clip=0.5), "cpu")
    theirs = engine(settings(offload), gpt(style, level))
    assert close(taken(own, 6)) == taken(theirs, 6)
    (whole,) = batch(9).micro_batches(7)
    torch.testing.assert_close(own.token_nats(whole), theirs.token_nats(whole), rtol=1e-5, atol=1e-5)
    expected, found = own.weights(), theirs.weights()
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(tensor, found[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("offload", OFFLOADS)
def test_bf16_is_near_our_own_and_keeps_weights_in_fp32(offload: str) -> None:
    """Its weights begin as the model's own, not rounded to bf16; losses are within bf16's rounding of ours."""
    before = {
        name: tensor.clone() for name, tensor in OptimizerStep(gpt(), Train(max_iters=1), "cpu").weights().items()
    }
    theirs = engine(settings(offload), precision="bf16")
    for name, tensor in theirs.weights().items():
        assert torch.equal(before[name], tensor), name
    own = OptimizerStep(gpt(), Train(max_iters=10, grad_clip=0.5), "cpu", precision="bf16")
    for (loss, norm), (other, other_norm) in zip(taken(own, 6), taken(theirs, 6), strict=True):
        assert loss == pytest.approx(other, abs=2e-3)
        assert norm == pytest.approx(other_norm, rel=2e-2)
    assert theirs.weights()["blocks.0.mlp.up.weight"].dtype == torch.float32


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("offload", OFFLOADS)
def test_an_update_that_is_not_finite_is_left_out(offload: str, precision: Any) -> None:
    """Weights and state stay as they are, bit for bit; the step is noted, and the next one is taken."""
    step = engine(settings(offload), precision=precision)
    taken(step, 2)
    before = {name: tensor.clone() for name, tensor in step.weights().items()}
    hidden = step.hidden
    step.hidden = lambda **inputs: hidden(**inputs) * math.inf
    loss, norm = taken(step, 1, first=2)[0]
    step.hidden = hidden
    assert not math.isfinite(loss)
    assert not math.isfinite(norm)
    assert (int(step.skipped), int(step.first_bad_step)) == (1, 3)
    assert all(torch.equal(before[name], tensor) for name, tensor in step.weights().items())
    assert math.isfinite(taken(step, 1, first=3)[0][0])
    assert not all(torch.equal(before[name], tensor) for name, tensor in step.weights().items())


def failing_forward(step: OptimizerStep) -> Callable[[], None]:
    """In the second micro-batch's second block."""
    block, calls = step.model.blocks[1], []
    forward = block.forward

    def fails(*inputs: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("here")
        return forward(*inputs, **named)

    block.forward = fails
    return lambda: setattr(block, "forward", forward)


def failing_backward(step: OptimizerStep) -> Callable[[], None]:
    """Behind the second block, in the second micro-batch, where half of the gradients are there."""
    calls: list[int] = []

    def fails(module: Any, inputs: Any, output: Tensor) -> None:
        def gradient(_: Tensor) -> None:
            calls.append(1)
            if len(calls) == 2:
                raise torch.OutOfMemoryError("here")

        if output.requires_grad:
            output.register_hook(gradient)

    return step.model.blocks[0].register_forward_hook(fails).remove


@pytest.mark.parametrize("fail", [failing_forward, failing_backward])
@pytest.mark.parametrize("offload", OFFLOADS)
def test_a_step_that_ran_out_of_memory_leaves_nothing_behind(offload: str, fail: Any) -> None:
    """Taken again it is, bit for bit, the step of an engine that never failed, and so are those after it."""
    expected = engine(settings(offload))
    step = engine(settings(offload))
    first = taken(expected, 2)
    assert first == taken(step, 2)
    mend = fail(step)
    with pytest.raises(torch.OutOfMemoryError, match="here"):
        taken(step, 1, first=2)
    mend()
    step.model.zero_grad(set_to_none=True)
    assert taken(expected, 3, first=2) == taken(step, 3, first=2)


@pytest.mark.parametrize("offload", OFFLOADS)
def test_an_engine_that_is_let_go_of_frees_its_memory(offload: str) -> None:
    """What is tried before the start is a whole engine, and the run's own comes after it."""
    step = engine(settings(offload))
    taken(step, 2)
    held = [weakref.ref(flat) for flat in step.optimizer.flat]
    held += [weakref.ref(p.ds_tensor) for p in step.parameters if hasattr(p, "ds_tensor")]
    del step
    gc.collect()
    assert [kept().shape for kept in held if kept() is not None] == []


def test_fp16s_loss_scale_is_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins where the file says, is halved by an overflow, and is what a checkpoint brings back. torch computes
    fp16 on any CPU, if slowly; DeepSpeed asks for one that is fast at it."""
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    monkeypatch.setattr(CPU_Accelerator, "is_fp16_supported", lambda self: True)
    options = json.dumps({"fp16": {"initial_scale_power": 8, "hysteresis": 1}})
    train = Train(max_iters=10, zero=Zero(stage=2, options=options))
    step = engine(train, precision="fp16")
    assert step.loss_scale.item() == 256
    own = OptimizerStep(gpt(), Train(max_iters=10), "cpu")
    for (loss, norm), (other, other_norm) in zip(taken(own, 3), taken(step, 3), strict=True):
        assert loss == pytest.approx(other, abs=2e-3)
        assert norm == pytest.approx(other_norm, rel=1e-2)
    hidden = step.hidden
    step.hidden = lambda **inputs: hidden(**inputs) * math.inf
    taken(step, 1)
    step.hidden = hidden
    assert step.loss_scale.item() == 128
    again = engine(train, precision="fp16")
    again.load_state_dict(step.state_dict())
    assert again.engine.optimizer.loss_scale == 128


# ------------------------------------------------------------------------------------------------------- whole runs


def ds_config(stage: int, *, offloaded: bool = True) -> str:
    """As guides write it: what the config says too is `auto`."""
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": True, "contiguous_gradients": True}
    zero |= {"reduce_bucket_size": "auto", "allgather_bucket_size": 5e8}
    if offloaded:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if stage == 3:
        zero |= {"stage3_param_persistence_threshold": 0, "stage3_gather_16bit_weights_on_model_save": True}
        zero |= {"offload_param": {"device": "cpu", "pin_memory": True}} if offloaded else {}
    parts: dict[str, Any] = {"zero_optimization": zero, "gradient_clipping": "auto", "bf16": {"enabled": "auto"}}
    parts["optimizer"] = {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "weight_decay": "auto"}}
    parts |= dict.fromkeys(
        ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"), "auto"
    )
    Path("ds_config.json").write_text(json.dumps(parts))
    return "deepspeed=ds_config.json"


def saved(name: str, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    path = Path(f"results/{name}/checkpoints/step-{step:08d}")
    return load_file(path / "model.safetensors"), torch.load(path / "training_state.pt", weights_only=True)


def near(expected: float | None, found: float | None) -> bool:
    """Within rounding; what is not in one line is not in the other."""
    return expected is found is None or found == pytest.approx(expected, rel=1e-4)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [2, 3])
def test_four_steps_and_four_more_are_eight(yaml: Path, stage: int, precision: str) -> None:
    """Bit for bit, dropout included: weights, moments and logged losses of a run that was stopped between."""
    asked = [ds_config(stage), f"train.precision={precision}", "log.interval=1"]
    go(yaml, *asked, "name=whole", "max_iters=8", "train.schedule=constant", "train.warmup_iters=2")
    go(yaml, *asked, "name=halves", "max_iters=4", "train.schedule=constant", "train.warmup_iters=2")
    go(yaml, *asked, "name=halves", "max_iters=8", "train.schedule=constant", "train.warmup_iters=2")
    (weights, state), (other, other_state) = saved("whole", 8), saved("halves", 8)
    assert same(weights, other)
    assert same(state["step"], other_state["step"])
    assert [line["loss"] for line in metrics("whole")] == [line["loss"] for line in metrics("halves")]
    assert int(state["step"]["optimizer"]["flat"][0]["step"]) == 8


@pytest.mark.parametrize("stage", [2, 3])
def test_a_gpt_is_trained_from_a_ds_config(yaml: Path, stage: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The run is that of our own step within rounding, logged, evaluated and sampled as ever, its plan counts the
    stage, and what reads checkpoints reads its own."""
    go(yaml, "name=own", "max_iters=10")
    _, shown = go(yaml, ds_config(stage), "name=theirs", "max_iters=10")
    for line, other in zip(metrics("own"), metrics("theirs"), strict=True):
        for key in ("loss", "grad_norm", "val_loss", "learning_rate", "tokens_seen"):
            assert near(line.get(key), other.get(key)), (line["step"], key)
    assert Path("results/theirs/samples/step-00000010.txt").read_text() == (
        Path("results/own/samples/step-00000010.txt").read_text()
    )
    assert json.loads(Path("results/theirs/status.json").read_text())["state"] == "finished"
    plan = json.loads(Path("results/theirs/plan.json").read_text())
    assert "planned" in shown
    assert (
        plan["memory_gib"]["peak_allocated"]
        != json.loads(Path("results/own/plan.json").read_text())["memory_gib"]["peak_allocated"]
    )
    one, two = restore("results/own").state_dict(), restore("results/theirs").state_dict()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], rtol=1e-3, atol=1e-5)
    with pytest.raises(SystemExit) as end:
        main(["sample", "theirs", "--max-new-tokens", "4"])
    assert end.value.code == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("stage", [2, 3])
def test_a_t5_is_trained_from_a_ds_config(here: Path, stage: int) -> None:
    """A model of transformers', from pairs: losses of our own step, samples beside references, texts by generate."""
    data = tiny_pairs.write(here / "data")
    yaml = tiny_pairs.config(data, here / "t5.yaml")
    sampled = ["sample.interval=4", "sample.num_samples=2"]
    go(yaml, "name=own", *sampled)
    go(yaml, ds_config(stage), "name=theirs", *sampled)
    for line, other in zip(metrics("own"), metrics("theirs"), strict=True):
        assert other["loss"] == pytest.approx(line["loss"], rel=1e-4)
        assert near(line.get("val_loss"), other.get("val_loss"))
    sample = Path("results/theirs/samples/step-00000008.txt").read_text()
    assert sample == Path("results/own/samples/step-00000008.txt").read_text()
    assert sample.count("reference: ") == 2
    with pytest.raises(SystemExit) as end:
        main(["generate", "theirs", "--input", str(data / "pairs.jsonl"), "--output", "out.jsonl"])
    assert end.value.code == 0
    assert len(Path("out.jsonl").read_text().splitlines()) == 120
    with pytest.raises(SystemExit) as end:
        main(["export", "theirs", "exported"])
    assert end.value.code == 0
    go(yaml, ds_config(stage), "name=theirs", *sampled, "max_iters=12")
    assert metrics("theirs")[-1]["step"] == 12


@pytest.mark.parametrize("stage", [2, 3])
def test_memory_that_runs_out_in_a_run_halves_the_micro_batch(
    yaml: Path, stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch stays, it is said and recorded, and from there on it is the run begun at the smaller size."""
    forward = GPT.hidden

    def full(self: GPT, tokens: Tensor) -> Tensor:
        if len(tokens) > 2 and self.training:
            raise torch.OutOfMemoryError("Tried to allocate 4.00 MiB.")
        return forward(self, tokens)

    asked = [ds_config(stage), "max_iters=4", "model.dropout=0.1", "sample.interval=0"]
    with monkeypatch.context() as patch:
        patch.setattr(GPT, "hidden", full)
        summary, shown = go(yaml, *asked, "name=full")
    assert [(one["step"], one["before"], one["after"]) for one in summary["out_of_memory"]] == [(1, 4, 2)]
    assert "From here on 2 sequences at once instead of 4" in shown
    go(yaml, *asked, "name=small", "train.micro_batch_size=2")
    assert same(saved("full", 4)[0], saved("small", 4)[0])


def test_the_launcher_of_deepspeed_is_a_door_too(yaml: Path) -> None:
    """`deepspeed train.py …` sets RANK and its like and adds --local_rank: one process trains, two are refused."""
    ds = ds_config(2).removeprefix("deepspeed=")
    told = {"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    words = ["train", str(yaml), "--local_rank=0", "--deepspeed", ds, "--max_iters=2", "sample.interval=0"]
    run = [sys.executable, "-m", "ganeum", *words]
    one = subprocess.run(run, env={**os.environ, **told, "WORLD_SIZE": "1"}, capture_output=True, text=True)
    assert one.returncode == 0, one.stderr
    assert "finished" in Path("results/tiny/status.json").read_text()
    two = subprocess.run(
        [*run, "name=two"], env={**os.environ, **told, "WORLD_SIZE": "2"}, capture_output=True, text=True
    )
    assert two.returncode == 2
    assert "a run is one process on one device, but 2 were started" in two.stderr
    assert not Path("results/two").exists()
