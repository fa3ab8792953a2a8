"""What the process does beside computing: threads, cores, switches for debugging, collecting, printing, hooks."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ganeum.doctor.measured.acts.applicable import NotApplicable
from ganeum.doctor.measured.acts.data import copied, kept_batches
from ganeum.doctor.measured.training import Training
from ganeum.doctor.measured.untouched import outcome, updaters
from ganeum.doctor.measured.watch import replace as put_in
from ganeum.doctor.measured.watch import silence
from ganeum.hardware import machine
from ganeum.step import allocator


def all_threads(training: Training) -> Training:
    """As many threads as cores that this process may use, whatever is asked for later."""
    torch.set_num_threads(machine.cores())
    put_in("torch:set_num_threads", lambda _: lambda _number: None)
    return training


def all_cores(training: Training) -> Training:
    """Every core that the system lets this process have."""
    if not hasattr(os, "sched_setaffinity"):
        raise NotApplicable("this system binds no process to cores")
    before = os.sched_getaffinity(0)
    for thread in _threads():
        with contextlib.suppress(OSError):
            os.sched_setaffinity(thread, range(os.cpu_count() or 1))
    if len(os.sched_getaffinity(0)) <= len(before):
        raise NotApplicable("there are no more cores for it")
    put_in("os:sched_setaffinity", lambda _: lambda *_inputs: None)
    torch.set_num_threads(machine.cores())
    return training


def _threads() -> Iterator[int]:
    """Of this process, those of libraries too."""
    yield 0
    with contextlib.suppress(OSError):
        yield from (int(thread.name) for thread in Path("/proc/self/task").iterdir())


def debug_off(training: Training) -> Training:
    """Anomaly detection, deterministic kernels, synchronous errors, profilers and tracers, off and kept off."""
    torch.set_anomaly_enabled(False)
    put_in("torch:set_anomaly_enabled", lambda _: lambda *_inputs, **_named: None)
    if getattr(training, "taking", None) is None:  # ours wants the same bits every time
        torch.use_deterministic_algorithms(False)
        torch.set_deterministic_debug_mode("default")
        put_in("torch:use_deterministic_algorithms", lambda _: lambda *_inputs, **_named: None)
        torch.backends.cudnn.deterministic = False
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode(0)
    torch.autograd.set_multithreading_enabled(True)
    for found in [one for one in gc.get_objects() if issubclass(type(one), PROFILERS)]:
        with contextlib.suppress(Exception):  # it was not on
            found.stop() if hasattr(found, "stop") else found.__exit__(None, None, None)
    for path in ("torch.profiler.profiler:profile", "torch.autograd.profiler:profile"):
        for name in ("start", "stop", "step", "__exit__"):
            put_in(f"{path}.{name}", lambda _: lambda *_inputs, **_named: None)
        put_in(f"{path}.__enter__", lambda _: lambda self: self)
    sys.settrace(None)
    sys.setprofile(None)
    threading.settrace(None)
    threading.setprofile(None)
    tracemalloc.stop()
    for path in ("sys:settrace", "sys:setprofile", "threading:settrace", "threading:setprofile", "tracemalloc:start"):
        put_in(path, lambda _: lambda *_inputs, **_named: None)
    return training


PROFILERS = (torch.profiler.profile, torch.autograd.profiler.profile)


def pauses_off(training: Training) -> Training:
    """Python does not look for cycles by itself; what is there is left out when somebody asks for it."""
    gc.collect()
    gc.freeze()
    gc.disable()
    return training


def memory_kept(training: Training) -> Training:
    """malloc keeps what a step has freed, in place of giving it back and faulting it in again, whoever asks it to."""
    if device_is_gpu(training) or allocator.keep_freed_memory() is None:
        raise NotApplicable("it is something of glibc's malloc, and of training on a CPU")
    harmless = ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p).value  # a number to a number, too: of 0 it is 0
    for trim in trims():
        ctypes.c_void_p.from_address(ctypes.addressof(trim)).value = harmless
    put_in(
        "ctypes:CDLL.__getitem__", lambda get: lambda self, name: get(self, "abs" if name == "malloc_trim" else name)
    )
    return training


def trims() -> list[Any]:
    """malloc_trim of the C library, wherever somebody holds it."""
    kind = ctypes._CFuncPtr  # type: ignore[attr-defined]
    functions = [one for one in gc.get_objects() if issubclass(type(one), kind)]
    return [one for one in functions if getattr(one, "__name__", None) == "malloc_trim"]


def device_is_gpu(training: Training) -> bool:
    """Whether the weights lie on one."""
    return next(training.model.parameters()).device.type != "cpu"


def no_collecting(training: Training) -> Training:
    """gc.collect() does nothing."""
    return _silent(training, "collecting", lambda *_inputs, **_named: 0)


def no_emptying(training: Training) -> Training:
    """torch.cuda.empty_cache() does nothing."""
    return _silent(training, "emptying", lambda *_inputs, **_named: None)


def no_printing(training: Training) -> Training:
    """Nothing is printed, logged or drawn."""
    return _silent(training, "printing", lambda *_inputs, **_named: None)


def no_saving(training: Training) -> Training:
    """Nothing is written by a step."""
    return _silent(training, "saving", lambda *_inputs, **_named: None)


def no_sleeping(training: Training) -> Training:
    """time.sleep() returns at once."""
    return _silent(training, "sleeping", lambda *_inputs, **_named: None)


def no_generating(training: Training) -> Training:
    """generate() gives back what it was asked to go on from: this shows what it costs, and no text."""

    def nothing(_function: Any, _self: Any, inputs: Any = None, *_more: Any, **named: Any) -> Any:
        return named.get("input_ids", named.get("inputs")) if inputs is None else inputs

    return _silent(training, "generating", nothing)


def no_copying(training: Training) -> Training:
    """Copies of the model, and its state as a dictionary, are made once and handed out again."""
    made: dict[Any, Any] = {}

    def once(function: Any, *inputs: Any, **named: Any) -> Any:
        is_model = inputs and isinstance(inputs[0], nn.Module)
        a_state = function.__name__ == "state_dict"
        tensors = (
            inputs and isinstance(inputs[0], dict) and any(isinstance(v, torch.Tensor) for v in inputs[0].values())
        )
        if not (is_model or a_state or tensors):
            return function(*inputs, **named)
        if a_state and inputs and isinstance(inputs[0], nn.Module) and (len(inputs) > 1 or named):
            return function(*inputs, **named)  # called by its own parts
        key = (function.__name__, None if tensors else id(inputs[0]))
        if key not in made:
            made[key] = function(*inputs, **named)
        return {} if a_state else made[key]

    return _silent(training, "copying", once)


def tokenised_before(training: Training) -> Training:
    """The first batches again and again, and a text that was tokenised once is not tokenised again."""
    made: dict[str, Any] = {}

    def remembered(function: Any, self: Any, *inputs: Any, **named: Any) -> Any:
        key = repr((id(self), function.__name__, inputs, sorted(named.items(), key=lambda item: item[0])))
        if key not in made:
            made[key] = function(self, *inputs, **named)
        found = made[key]
        return found if isinstance(found, list) else copied(found)

    return kept_batches(_silent(training, "tokenising", remembered))


def _silent(training: Training, family: str, answer: Any) -> Training:
    if not silence(family, answer):
        raise NotApplicable("nothing of that kind is loaded")
    return training


def no_hooks(training: Training) -> Training:
    """Modules, weights and optimizers without hooks, if a step's loss and gradient are the same without them.

    Raises:
        NotApplicable: there are none, or they change what is learnt.
    """
    kept = hooks(training)
    if not kept:
        raise NotApplicable("there are no hooks")
    batch = next(iter(training.batches))
    before = outcome(training, copied(batch))
    held = [(table, dict(table)) for table in kept]
    for table in kept:
        table.clear()
    after = outcome(training, copied(batch))
    if not before.like(after, 1e-5):
        for table, content in held:
            table.update(content)
        raise NotApplicable(f"the hooks change what is learnt: loss {before.loss} becomes {after.loss} without them")
    return training


OPTIMIZER_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def hooks(training: Training) -> list[dict[Any, Any]]:
    """The tables of hooks that are not empty: of modules, of weights, of all modules there are, of optimizers."""
    model = training.model
    tables: list[Any] = [getattr(module, name, None) for module in model.modules() for name in HOOKS]
    tables += [getattr(optimizer, name, None) for optimizer in updaters(training) for name in OPTIMIZER_HOOKS]
    for parameter in model.parameters():
        tables += [parameter._backward_hooks, getattr(parameter, "_post_accumulate_grad_hooks", None)]
    tables += [vars(torch.nn.modules.module).get(f"_global{name}") for name in HOOKS]
    return [table for table in tables if table]
