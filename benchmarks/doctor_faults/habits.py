"""Faults of the loop around a step: what is done every time, and need not be."""

from __future__ import annotations

import copy
import gc
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from doctor_faults.fault import fault
from doctor_faults.subjects import SUBJECTS, Batch, Parts, own_loss, plain_loss

Step = Callable[[Batch], Any]


def behind(parts: Parts, make: Callable[[nn.Module, torch.optim.Optimizer], Callable[[Batch, Any], None]]) -> None:
    """Something that follows each step."""

    def wrap(step: Step, model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
        follow = make(model, optimizer)

        def taken(batch: Batch) -> Any:
            loss = step(batch)
            follow(batch, loss)
            return loss

        return taken

    parts.step.append(wrap)


@fault("printing much", "speed", ("sync", "too_often"), SUBJECTS)
def chatterbox(parts: Parts) -> None:
    """All weights' ends are printed after each step."""

    def make(model: nn.Module, optimizer: object) -> Callable[[Batch, Any], None]:
        def follow(batch: Batch, loss: Any) -> None:
            for name, parameter in model.named_parameters():
                print(name, parameter.detach().flatten()[:40], file=sys.stderr)

        return follow

    behind(parts, make)


@fault("collecting garbage in every step", "speed", ("memory_emptied", "pauses"), SUBJECTS)
def tidy_mind(parts: Parts) -> None:
    """gc.collect() after each step."""
    behind(parts, lambda model, optimizer: lambda batch, loss: gc.collect() and None)


@fault("a copy of the model in every step", "speed", ("model_copied", "too_often"), SUBJECTS)
def keepsake(parts: Parts) -> None:
    """The weights are copied twice over after each step, for the best of them."""

    def make(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[Batch, Any], None]:
        kept: list[Any] = []

        def follow(batch: Batch, loss: Any) -> None:
            kept[:] = [copy.deepcopy(model), copy.deepcopy(optimizer.state_dict())]

        return follow

    behind(parts, make)


@fault("a checkpoint every step", "speed", ("too_often", "slow_disk", "model_copied"), SUBJECTS)
def ledger_keeper(parts: Parts) -> None:
    """Weights and the optimizer's state are written to a file after each step."""

    def make(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[Batch, Any], None]:
        place = Path(tempfile.mkdtemp()) / "kept.pt"

        def follow(batch: Batch, loss: Any) -> None:
            torch.save({"weights": model.state_dict(), "state": optimizer.state_dict()}, place)

        return follow

    behind(parts, make)


@fault("an evaluation every few steps", "speed", ("too_often", "extra_forwards"), SUBJECTS)
def pop_quiz(parts: Parts) -> None:
    """Four batches are evaluated after every second step."""

    def make(model: nn.Module, optimizer: object) -> Callable[[Batch, Any], None]:
        loss_of, count = plain_loss if parts.subject == "plain" else own_loss, 0

        def follow(batch: Batch, loss: Any) -> None:
            nonlocal count
            count += 1
            if count % 2 == 0:
                model.eval()
                with torch.no_grad():
                    for _ in range(4):
                        loss_of(model, batch)
                model.train()

        return follow

    behind(parts, make)


@fault("the same batch forward twice", "speed", ("extra_forwards",), SUBJECTS)
def second_opinion(parts: Parts) -> None:
    """The loss is computed once more for a display, with its graph."""

    def make(model: nn.Module, optimizer: object) -> Callable[[Batch, Any], None]:
        loss_of = plain_loss if parts.subject == "plain" else own_loss
        return lambda batch, loss: float(loss_of(model, batch)) and None

    behind(parts, make)


@fault("anomaly detection", "speed", ("debug_mode",), SUBJECTS)
def magnifying_glass(parts: Parts) -> None:
    """torch.autograd's anomaly detection stays on."""
    parts.model.append(lambda model: torch.autograd.set_detect_anomaly(True) and None)


@fault("a profiler left on", "speed", ("debug_mode",), SUBJECTS)
def endless_diary(parts: Parts) -> None:
    """torch.profiler records every step, with shapes."""

    def wrap(step: Step, model: nn.Module, optimizer: object) -> Step:
        def taken(batch: Batch) -> Any:
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True):
                return step(batch)

        return taken

    parts.step.append(wrap)


@fault("Python's own profiler left on", "speed", ("debug_mode",), SUBJECTS)
def court_reporter(parts: Parts) -> None:
    """Every call of a Python function is reported to a function."""

    def wrap(step: Step, model: nn.Module, optimizer: object) -> Step:
        calls: dict[str, int] = {}

        def note(frame: Any, event: str, argument: Any) -> None:
            name = f"{frame.f_code.co_filename}:{frame.f_code.co_name}"
            calls[name] = calls.get(name, 0) + 1

        def taken(batch: Batch) -> Any:
            sys.setprofile(note)
            return step(batch)

        return taken

    parts.step.append(wrap)


@fault("hooks on every module", "speed", ("debug_mode", "sync"), SUBJECTS)
def nosy_neighbours(parts: Parts) -> None:
    """Each module's output is measured: mean, spread, largest, and the numbers are taken out of their tensors."""

    def listen(model: nn.Module) -> None:
        seen: dict[str, tuple[float, ...]] = {}

        def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if isinstance(output, torch.Tensor):
                    x = output.detach().float()
                    seen[name] = (x.mean().item(), x.std().item(), x.abs().max().item(), x.median().item())

            return hook

        for name, module in model.named_modules():
            if name:
                module.register_forward_hook(look(name))

    parts.model.append(listen)


@fault("numbers taken out of every gradient", "speed", ("sync", "debug_mode"), SUBJECTS)
def bean_counter(parts: Parts) -> None:
    """Every gradient's norm, mean, spread and histogram are logged in every step."""

    def wrap(step: Step, model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
        page = io.StringIO()

        def count(*_: Any) -> None:
            page.seek(0)
            for parameter in model.parameters():
                if parameter.grad is not None:
                    bins = torch.histc(parameter.grad, 64)
                    page.write(f"{parameter.grad.norm().item()} {parameter.grad.std().item()} {bins.tolist()}\n")

        optimizer.register_step_pre_hook(count)
        return step

    parts.step.append(wrap)


@fault("losses kept with their graphs", "memory", ("kept_graph",), SUBJECTS)
def elephant_memory(parts: Parts) -> None:
    """What a step computed is kept for an average, with all that it was computed from."""
    loss_of, kept = plain_loss if parts.subject == "plain" else own_loss, []

    def keep(model: nn.Module, batch: Batch) -> torch.Tensor:
        loss = loss_of(model, batch)
        kept.append(loss * 1.0)
        return loss

    parts.loss = keep


@fault("forward under no care for its mode", "learning", ("eval_mode",), ("windows", "documents", "pairs"))
def sleepwalker(parts: Parts) -> None:
    """The model has dropout, and was left in eval() by an evaluation."""
    drop = ("dropout_rate",) if parts.subject == "pairs" else ("resid_pdrop", "embd_pdrop", "attn_pdrop")
    parts.options |= dict.fromkeys(drop, 0.1)
    parts.model.append(lambda model: model.eval())
