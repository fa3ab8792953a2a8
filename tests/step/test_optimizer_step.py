"""The step is plain PyTorch's, however it is split; it never waits, and a bad batch never reaches the weights."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ganeum.config.schema import Model, Train
from ganeum.data.batch import Batch, WindowBatch
from ganeum.models.gpt import GPT
from ganeum.step import optimizer_step, rounding
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.step.timings import Timings

TRAIN = Train(batch_size=8, learning_rate=1e-2, weight_decay=0.1, grad_clip=1.0)
KINDS = [
    TRAIN,
    TRAIN.model_copy(update={"optimizer": "muon"}),
    TRAIN.model_copy(update={"optimizer": "adafactor"}),
    TRAIN.model_copy(update={"optimizer": "sgd"}),
    pytest.param(
        TRAIN.model_copy(update={"optimizer": "adamw8bit"}),
        marks=pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed"),
    ),
    TRAIN.model_copy(update={"weights": "bf16"}),
    TRAIN.model_copy(update={"optimizer": "muon", "weights": "bf16", "parametrization": "mup"}),
]


def each_kind(test: Any) -> Any:
    """Runs a test with every optimizer, and with weights in bf16."""
    return pytest.mark.parametrize(
        "train", KINDS, ids=["adamw", "muon", "adafactor", "sgd", "adamw8bit", "adamw-bf16", "muon-bf16-mup"]
    )(test)


def gpt(seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    return GPT(Model(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=70))


def batch(step: int, sequences: int = 8) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(70, (sequences, 17), generator=torch.Generator().manual_seed(step))
    return tokens[:, :-1], tokens[:, 1:]


def stepping(train: Train, precision: Any = "fp32", seed: int = 0) -> OptimizerStep:
    """A step of a fresh model; where its weights are bf16, everything is computed in that."""
    model = gpt(seed)
    if train.weights == "bf16":
        rounding.to_bf16(model)
    return OptimizerStep(model, train, "cpu", precision="bf16" if train.weights == "bf16" else precision)


def take(step: OptimizerStep, n: int, micro: int = 8, rate: float = 1e-2) -> optimizer_step.StepResult:
    x, y = batch(n)
    return step.on(WindowBatch(x, y), at_once=micro, step=n, learning_rate=rate)


def weights(model: GPT) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def tensors(state: Any) -> list[Tensor]:
    """Every tensor in a state dict, in order."""
    if isinstance(state, Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list) else []
    return [tensor for value in values for tensor in tensors(value)]


def assert_moved_alike(ours: GPT, theirs: GPT) -> None:
    """The difference is less than a thousandth of the way from the initial weights. (Element by element Adam makes any
    size of rounding visible: it divides a gradient by its own size.)"""
    start, a, b = (torch.cat([p.detach().flatten() for p in model.parameters()]) for model in (gpt(), ours, theirs))
    assert (a - b).norm() < 1e-3 * (b - start).norm()


@pytest.mark.parametrize("grad_clip", [0.0, 0.1, 1e9])
def test_it_is_what_plain_pytorch_does(grad_clip: float) -> None:
    """Three steps of torch's AdamW, cross_entropy and clip_grad_norm_ written out give the same weights."""
    train = TRAIN.model_copy(update={"grad_clip": grad_clip})
    ours, theirs = gpt(), gpt()
    step = OptimizerStep(ours, train, "cpu", loss_chunk=50)
    decayed = [p for p in theirs.parameters() if p.dim() > 1]
    groups = [{"params": decayed}, {"params": [p for p in theirs.parameters() if p.dim() == 1], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    for n in range(3):
        result = take(step, n)
        x, y = batch(n)
        loss = F.cross_entropy(theirs(x).flatten(0, 1), y.flatten())
        reference.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), grad_clip or torch.inf)
        reference.step()
        torch.testing.assert_close(result.loss, loss.detach())
        torch.testing.assert_close(result.grad_norm, norm)
        assert result.tokens == 8 * 16
    assert_moved_alike(ours, theirs)


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_the_micro_batch_does_not_change_the_update(micro: int) -> None:
    """Loss, norm and weights after a step are those of the undivided batch."""
    whole, split = OptimizerStep(gpt(), TRAIN, "cpu"), OptimizerStep(gpt(), TRAIN, "cpu")
    first, second = take(whole, 0), take(split, 0, micro)
    torch.testing.assert_close((first.loss, first.grad_norm), (second.loss, second.grad_norm))
    assert_moved_alike(split.model, whole.model)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_what_fp32_learns(precision: Any) -> None:
    """Fifteen steps on one batch: the loss falls from ln 70 = 4.25 as far as in fp32, within 3 %."""
    losses = []
    for value in ("fp32", precision):
        step = OptimizerStep(gpt(), TRAIN, "cpu", precision=value)
        for n in range(15):
            x, y = batch(0)
            result = step.on(WindowBatch(x, y), step=n, learning_rate=1e-2)
        losses.append(result.loss.item())
        assert int(step.skipped) == 0
    assert losses[0] < 3.0
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


@each_kind
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_bad_batch_changes_nothing_and_is_remembered(value: float, train: Train) -> None:
    """Weights and optimizer stay bit for bit; first_bad_step names the first one also after good steps followed."""
    step = stepping(train)
    take(step, 0)
    before, state = weights(step.model), copy.deepcopy(step.optimizer.state_dict())
    good, step.hidden = step.hidden, lambda **inputs: good(**inputs) * value
    take(step, 1)
    torch.testing.assert_close(weights(step.model), before, rtol=0, atol=0)
    torch.testing.assert_close(tensors(step.optimizer.state_dict()), tensors(state), rtol=0, atol=0)
    take(step, 2)
    step.hidden = good
    take(step, 3)
    assert (int(step.first_bad_step), int(step.skipped)) == (2, 2)
    assert all(bool(tensor.isfinite().all()) for tensor in step.model.state_dict().values())


def test_fp16_halves_a_scale_that_overflows_and_goes_on() -> None:
    """From 2^40 the scale falls until the gradients fit; that is no bad step, and training then moves the weights."""
    step = OptimizerStep(gpt(), TRAIN, "cpu", precision="fp16")
    step.loss_scale.fill_(2.0**40)
    before = weights(step.model)
    take(step, 0)
    assert (step.loss_scale.item(), int(step.skipped), int(step.first_bad_step)) == (2.0**39, 1, -1)
    torch.testing.assert_close(weights(step.model), before, rtol=0, atol=0)
    for n in range(1, 40):
        result = take(step, n)
    assert step.loss_scale.item() < 2.0**30
    assert int(step.first_bad_step) == -1
    assert result.grad_norm.isfinite()
    assert not torch.equal(step.model.head.weight, before["head.weight"])


def test_fp16_doubles_its_scale_after_enough_good_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every GROWTH_INTERVAL updates in a row, here three."""
    monkeypatch.setattr(optimizer_step, "GROWTH_INTERVAL", 3)
    step = OptimizerStep(gpt(), TRAIN, "cpu", precision="fp16")
    scales = []
    for n in range(6):
        take(step, n)
        scales.append(step.loss_scale.item())
    assert scales == [2.0**16] * 2 + [2.0**17] * 3 + [2.0**18]


@each_kind
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_goes_on_from_its_state_bit_for_bit(precision: Any, train: Train, tmp_path: Path) -> None:
    """Six steps, and three steps + a file read without executing anything + three steps, end with the same weights."""
    straight = stepping(train, precision)
    for n in range(6):
        take(straight, n)
        if n == 2:
            saved, random = weights(straight.model), torch.get_rng_state()
            torch.save(straight.state_dict(), tmp_path / "state.pt")
    resumed = stepping(train, precision, seed=9)
    resumed.model.load_state_dict(saved)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.set_rng_state(random)
    for n in range(3, 6):
        take(resumed, n)
    torch.testing.assert_close(weights(resumed.model), weights(straight.model), rtol=0, atol=0)


class NoReading(TorchDispatchMode):
    """Fails where a value is read from the device: .item(), a truth value, a shape that depends on data."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select"), name
        return func(*args, **(kwargs or {}))


@each_kind
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_never_reads_from_the_device(precision: Any, train: Train) -> None:
    """In no precision and with no optimizer is anything taken from a tensor into Python during a step."""
    step = stepping(train, precision)
    take(step, 0)
    with NoReading():
        take(step, 1, micro=2)


def test_a_state_from_before_there_were_parts_is_read() -> None:
    """What torch's AdamW saved by itself goes on as AdamW's part."""
    step = OptimizerStep(gpt(), TRAIN, "cpu")
    take(step, 0)
    saved, state = weights(step.model), copy.deepcopy(step.state_dict())
    take(step, 1)
    resumed = OptimizerStep(gpt(seed=9), TRAIN, "cpu")
    resumed.model.load_state_dict(saved)
    resumed.load_state_dict(state | {"optimizer": state["optimizer"]["adamw"]})
    take(resumed, 1)
    torch.testing.assert_close(weights(resumed.model), weights(step.model), rtol=0, atol=0)


def test_evaluation_gives_the_nats_of_each_token() -> None:
    """(B, T), equal to cross_entropy without reduction, and no gradient is made."""
    step = OptimizerStep(gpt(), TRAIN, "cpu", loss_chunk=10)
    x, y = batch(0, 3)
    expected = F.cross_entropy(step.model(x).flatten(0, 1), y.flatten(), reduction="none").view(3, 16)
    torch.testing.assert_close(step.token_nats(Batch({"tokens": x}, y)), expected.detach())
    assert all(p.grad is None for p in step.parameters)


def test_a_batch_of_another_size_is_refused() -> None:
    """The loss is divided by the targets that were announced, so a shorter batch would silently learn less."""
    step = OptimizerStep(gpt(), TRAIN, "cpu")
    with pytest.raises(AssertionError, match="64 targets in a batch of 128"):
        step(WindowBatch(*batch(0, 4)).micro_batches(4), targets=128, step=0, learning_rate=1e-2)


def test_the_parts_of_a_step_are_timed_when_asked() -> None:
    """All four parts take time; without a device nothing is measured."""
    step, timings = OptimizerStep(gpt(), TRAIN, "cpu"), Timings(torch.device("cpu"))
    step.on(WindowBatch(*batch(0)), step=0, learning_rate=1e-2, timings=timings)
    assert all(seconds > 0 for seconds in timings.seconds.values())
    assert set(timings.seconds) == {"data", "forward", "backward", "optimizer"}
    idle = Timings()
    with idle.part("data"):
        pass
    assert not any(idle.seconds.values())
