"""Two real steps, taken to see what memory they need: the measurement beside a traced prediction.

The model is built with fresh weights and thrown away; what goes through are zeros, as long as the longest rows may be.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ganeum.config import Config
from ganeum.config.change import change
from ganeum.data.batch import Whole
from ganeum.hardware.device import Device
from ganeum.models.kernels import mode_kept
from ganeum.plan.execution import Execution
from ganeum.plan.trace.step import settled, whole_batch
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.train import out_of_memory
from ganeum.train.out_of_memory import Full
from ganeum.train.start import start


@mode_kept()
def probe(config: Config, device: Device, way: Execution) -> tuple[int, int] | str:
    """Bytes allocated and reserved at the fullest moment of two steps here, by torch's own account; the latter is 0 on
    a CPU, whose memory is not cached. Where memory runs out, what was said then.

    Args:
        config: model and optimizer; its vocabulary is known.
        device: of this machine, a GPU or the CPU.
        way: how much at once, in what precision.
    """
    here = change(settled(config, device, way), {"device": device.torch_name, "train.compile": way.compiled})
    found = out_of_memory.attempt(lambda: _taken(here, device, way), lambda: "step")
    out_of_memory.release()
    return found.said if isinstance(found, Full) else found


def _taken(config: Config, device: Device, way: Execution) -> tuple[int, int]:
    on_gpu = device.kind == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device.torch_name)
    step = start(config)
    step.model.train()
    batch = whole_batch(config, step.model, way)
    _step(step, batch, way, 0)
    if on_gpu:
        _step(step, batch, way, 1)
        torch.cuda.synchronize(device.torch_name)
        where = device.torch_name
        return torch.cuda.max_memory_allocated(where), torch.cuda.max_memory_reserved(where)
    gc.collect()
    there = _bytes(itertools.chain(step.model.parameters(), step.model.buffers(), _state(step)))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        _step(step, batch, way, 1)
    assert seen.profiler is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = (int(event.nbytes()) for event in sorted(events, key=lambda event: event.start_ns()))
    return there + max(itertools.accumulate(changes), default=0), 0


def _step(step: OptimizerStep, batch: Whole, way: Execution, number: int) -> None:
    step.on(batch, at_once=way.micro_batch_size, step=number, learning_rate=0.0)


def _state(step: OptimizerStep) -> Iterator[Tensor]:
    for part in step.optimizer.parts.values():
        yield from _tensors(part.state_dict())


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from _tensors(value)


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Of the storages behind them, each once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.device.type == "cpu"}
    return sum(storages.values())
