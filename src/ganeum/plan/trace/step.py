"""The run's own step, traced: the model and the optimizer step that training runs, built of fake tensors.

Weights have shapes and no numbers, so a model of any size is built in a moment, and a step of it needs no memory and no
GPU. What comes out is every allocation and release of the first two steps: in the second the optimizer has its state,
and all that follow are like it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ganeum.config import Config
from ganeum.config.change import change
from ganeum.data.batch import Whole, WindowBatch
from ganeum.data.examples.collate import Full
from ganeum.hardware.device import Device
from ganeum.models.adopted import Adopted
from ganeum.models.build import build
from ganeum.models.kernels import any_kernel, mode_kept
from ganeum.models.network import Network
from ganeum.plan.execution import Execution
from ganeum.plan.trace import generation
from ganeum.plan.trace.attention import Attention, attention_of
from ganeum.plan.trace.events import Trace
from ganeum.plan.trace.fake_cuda import Card, fake_cuda, fakes, unnoticed
from ganeum.plan.trace.kernels import as_in_a_run
from ganeum.plan.trace.operations import Operations
from ganeum.plan.trace.recorder import Recorder
from ganeum.plan.trace.repeated import Repeated
from ganeum.plan.trace.workspaces import Workspaces
from ganeum.step.assemble import assemble, prepare
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.step.timings import Timings

WORKSPACES = "CUBLAS_WORKSPACE_CONFIG"
PHASES = {"data": "batch", "forward": "forward", "backward": "backward", "optimizer": "update"}


@dataclass(frozen=True)
class Stage:
    """Where a trace is made: within :func:`stage`."""

    device: str
    recorder: Recorder
    attention: Attention | None

    def trace(self, steps: list[int], settings: dict[str, Any]) -> Trace:
        """What was recorded."""
        found = {"torch": torch.__version__, **settings}
        if self.attention is not None:
            found["attention"] = dict(self.attention.used)
        return Trace(self.recorder.finished(), tuple(steps), self.device, found, tuple(self.recorder.uncertain))


@contextmanager
def stage(device: Device) -> Iterator[Stage]:
    """Inside, tensors are fake, and what they do on ``device`` may be recorded. Undone at the end.

    On a GPU the strict mode of a run holds (``train/start.py``): kernels that add in a fixed order.
    """
    with ExitStack() as stack:
        if device.kind != "cuda":
            stack.enter_context(torch.autograd.set_multithreading_enabled(False))
            stack.enter_context(as_in_a_run(device.kind))
            stack.enter_context(fakes())
            yield Stage(device.kind, Recorder(device.kind), None)
            return
        card = Card.of(device)
        stack.enter_context(fake_cuda(card))
        attention = stack.enter_context(attention_of(card))
        stack.enter_context(as_in_a_run("cuda"))
        stack.enter_context(fakes())
        yield Stage("cuda", Recorder("cuda", workspaces=Workspaces(card), attention=attention), attention)


@contextmanager
def strict() -> Iterator[None]:
    """The mode that a run of ours on a GPU is in: kernels with a fixed order of sums, cuBLAS's workspace for them."""
    with mode_kept():
        before = os.environ.get(WORKSPACES)
        os.environ.setdefault(WORKSPACES, ":4096:8")
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            if before is None:
                del os.environ[WORKSPACES]


class Phases(Timings):
    """Measures nothing: tells a recorder which part of a step runs."""

    def __init__(self, recorder: Recorder, update: Callable[[], None]) -> None:
        super().__init__()
        self.recorder, self.update = recorder, update

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.recorder.phase = PHASES[name]
        if name == "optimizer":
            self.update()
        yield


def trace(
    config: Config, device: Device, way: Execution, operations: Operations | None = None, *, between: bool = False
) -> Trace:
    """The memory of a run.

    Args:
        config: model, optimizer, adapters; its vocabulary is known.
        device: a GPU, which need not be here, or a CPU.
        way: for what, how much at once, in what precision (``execution.of``).
        operations: gets those of the last step, or of the forward pass.
        between: of training also what a run does between its steps: an evaluation, a sample, and then a step again.

    Returns:
        Training: two steps, each of at most two micro-batches, as many as fill memory as much as all of them.
        Evaluation: the same and then a forward pass with its loss, in ``steps`` the third.
        Inference: a forward pass with the logits of every token. Generation: see ``generation.py``.

    Raises:
        RuntimeError: torch cannot do it with fake tensors.
    """
    config = settled(config, device, way)
    with ExitStack() as stack:
        scene = stack.enter_context(stage(device))
        if device.kind == "cuda":
            stack.enter_context(strict())
            if way.compiled:
                from ganeum.plan.trace.inductor import ASSUMED, compiling_for

                launched = [operations.kernel] if operations is not None else []
                stack.enter_context(compiling_for(device, *launched))
                scene.recorder.uncertain[ASSUMED] = None
        recorder = scene.recorder
        stack.enter_context(recorder)
        model = _built(config, device)
        if way.purpose in ("inference", "generation"):
            generation.narrow(model, way)
        recorder.forget()
        stack.enter_context(unnoticed())
        recorder.present(_in_order(model), "weights", "aten::_to_copy")
        if operations is not None:
            operations.phase = lambda: recorder.phase
            stack.enter_context(operations)
        stack.enter_context(recorder.modules_of(model))
        starts: list[int] = []
        repeated = Repeated(recorder, operations)

        def begin() -> None:
            starts.append(len(recorder.events))
            if operations is not None:
                operations.counts.clear()

        if way.purpose in ("training", "evaluation"):
            step = assemble(prepare(model, config), config)
            repeated.updates(step.optimizer)
            stack.enter_context(repeated.losses())
            for backward in (False, True):  # a run on a GPU tries one sequence first (train/start.py)
                recorder.warm(backward)
            whole = whole_batch(config, model, way)
            for number in range(2):
                begin()
                _train(step, recorder, whole, way.micro_batch_size, number)
            if way.purpose == "evaluation":
                begin()
                _evaluate(step, recorder, whole, way.micro_batch_size)
            elif between:
                begin()
                _between(step, recorder, config, way, device)
                begin()
                _train(step, recorder, whole, way.micro_batch_size, 2)
        else:
            recorder.phase = way.purpose
            begin()
            with any_kernel():
                (generation.read if way.purpose == "inference" else generation.written)(model, way, device.kind)
        recorder.phase = "build"
        recorder.label(model.parameters(), "weights")
        found = scene.trace(starts, {"purpose": way.purpose, "micro_batch_size": way.micro_batch_size})
        return replace(found, loops=tuple(repeated.loops))


def settled(config: Config, device: Device, way: Execution) -> Config:
    """The config with every ``auto`` that a step depends on as ``way`` has it."""
    values: dict[str, Any] = {
        "device": device.kind,
        "train.precision": way.precision,
        "train.compile": way.compiled and device.kind == "cuda",
        "train.loss_chunk": way.loss_chunk or 2**31,
        "train.activation_checkpointing": way.checkpointing,
        "train.micro_batch_size": way.micro_batch_size,
        "train.batch_size": way.micro_batch_size * way.accumulation,
    }
    if config.model.source is None and way.purpose != "generation":  # there the cache has room for all of it
        values["model.block_size"] = way.length
    return change(config, values)


def _built(config: Config, device: Device) -> Network:
    """On the device at once, where a run builds on the CPU and moves: the same tensors in the end."""
    with torch.device(device.kind):
        if config.model.source is None:
            return build(config.model)
        from ganeum.models.pretrained import adopt

        drawn = config.model.fresh or Path(config.model.source).is_file()
        return adopt(config.model.source, fresh=True, empty=True, drawn=drawn, dropout=config.model.dropout)


def _in_order(module: nn.Module) -> Iterator[Tensor]:
    """Weights and buffers in the order in which ``Module.to`` makes them."""
    for child in module.children():
        yield from _in_order(child)
    yield from (p for p in module._parameters.values() if p is not None)
    yield from (b for b in module._buffers.values() if b is not None)


def whole_batch(config: Config, model: Network, way: Execution) -> Whole:
    """At most two micro-batches, the longest there are, on the CPU: the second finds the first one's gradients."""
    count = way.micro_batch_size * min(way.accumulation, 2)
    if isinstance(model, Adopted):
        return Full(count, (way.source_length, way.length), config.data.batching == "packed")
    tokens = torch.zeros(count, way.length, dtype=torch.int64)
    return WindowBatch(tokens, tokens)


def _train(step: OptimizerStep, recorder: Recorder, whole: Whole, at_once: int, number: int) -> None:
    step.model.train()
    phases = Phases(recorder, lambda: recorder.label((p.grad for p in step.parameters), "gradients"))
    step.on(whole, at_once=at_once, step=number, learning_rate=1e-3, timings=phases)
    recorder.phase = "build"
    if number == 0:
        with _unrecorded():
            for part in step.optimizer.parts.values():
                recorder.label(_tensors(part.state_dict()), "optimizer")


def _evaluate(step: OptimizerStep, recorder: Recorder, whole: Whole, at_once: int) -> None:
    step.model.eval()
    recorder.phase = "evaluation"
    step.token_nats(next(iter(whole.micro_batches(at_once))))


def _between(step: OptimizerStep, recorder: Recorder, config: Config, way: Execution, device: Device) -> None:
    """The sizes are the config's own. Compiled code is evaluated uncompiled, which takes no less."""
    train, sample, model = config.train, config.sample, step.model
    at_once = way.micro_batch_size if train.eval_batch_size == "auto" else train.eval_batch_size
    if train.eval_tokens != "all":
        at_once = min(at_once, -(-train.eval_tokens // (way.length + way.source_length)))
    compiled, step.hidden = step.hidden, model.hidden
    whole = whole_batch(config, model, replace(way, micro_batch_size=at_once, accumulation=1))
    _evaluate(step, recorder, whole, at_once)
    step.hidden = compiled
    if sample.interval != 0:
        recorder.phase = "generation"
        if isinstance(model, Adopted):
            length = sample.max_new_tokens if way.source_length else way.length
            drawn = replace(way, micro_batch_size=1, length=length, beams=sample.num_beams)
        else:  # without autocast; a byte of the prompt is a token at most
            length = min(way.length, max(1, len(sample.prompt.encode())) + sample.max_new_tokens)
            drawn = replace(way, micro_batch_size=sample.num_samples, length=length, precision="fp32")
        with any_kernel():
            generation.written(model, drawn, device.kind)


@contextmanager
def _unrecorded() -> Iterator[None]:
    from torch.utils._python_dispatch import _disable_current_modes

    with _disable_current_modes():
        yield


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from _tensors(value)
