"""Functions that have no place in a step, by family: how often and how long they run in it, and how to do without."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

# Module and attribute, as they are called; what is not loaded is left alone.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "collecting": ("gc:collect",),
    "emptying": ("torch.cuda.memory:empty_cache", "torch.mps:empty_cache"),
    "printing": (
        "builtins:print",
        "logging:Logger.handle",
        "tqdm.std:tqdm.display",
        "tqdm.std:tqdm.set_postfix",
        "torch.utils.tensorboard.writer:SummaryWriter.add_scalar",
        "torch.utils.tensorboard.writer:SummaryWriter.add_scalars",
        "torch.utils.tensorboard.writer:SummaryWriter.add_histogram",
        "wandb:log",
        "mlflow:log_metric",
        "mlflow:log_metrics",
    ),
    "saving": (
        "torch.serialization:save",
        "safetensors.torch:save_file",
        "safetensors.torch:save_model",
        "transformers.modeling_utils:PreTrainedModel.save_pretrained",
        "pickle:dump",
        "numpy:save",
        "os:fsync",
        "os:fdatasync",
    ),
    "copying": (
        "copy:deepcopy",
        "torch.nn.modules.module:Module.state_dict",
        "torch.optim.optimizer:Optimizer.state_dict",
    ),
    "sleeping": ("time:sleep",),
    "tokenising": (
        "transformers.tokenization_utils_base:PreTrainedTokenizerBase.__call__",
        "transformers.tokenization_utils_base:PreTrainedTokenizerBase.encode",
        "transformers.tokenization_utils_base:PreTrainedTokenizerBase.apply_chat_template",
    ),
    "generating": ("transformers.generation.utils:GenerationMixin.generate",),
}


@dataclass
class Seen:
    """Calls of a family, and the seconds that the outermost of them took."""

    calls: int = 0
    seconds: float = 0.0


def replace(path: str, make: Callable[[Any], Any]) -> list[tuple[Any, str, Any]]:
    """Puts ``make(function)`` wherever ``module:function`` or ``module:Class.method`` goes by a name: ``from gc import
    collect`` is another one for the same.

    Returns:
        Owner, name and what was there, for :func:`put_back`; nothing where its module is not loaded.
    """
    return replace_all([(path, make)])


def replace_all(changes: Sequence[tuple[str, Callable[[Any], Any]]]) -> list[tuple[Any, str, Any]]:
    """The same for several, in one look through all loaded modules."""
    functions: dict[int, Any] = {}
    where: list[tuple[Any, str, Any]] = []
    for path, make in changes:
        module, _, name = path.partition(":")
        owner: Any = sys.modules.get(module)
        *classes, last = name.split(".")
        for part in classes:
            owner = getattr(owner, part, None)
        function = getattr(owner, last, None)
        if owner is None or function is None:
            continue
        if not classes:
            functions[id(function)] = make(function)
        elif last in vars(owner):
            where.append((owner, last, make(function)))
    if functions:
        for loaded in list(sys.modules.values()):
            names = getattr(loaded, "__dict__", None)
            if isinstance(names, dict):
                where += [
                    (loaded, name, functions[id(value)])
                    for name, value in list(names.items())
                    if id(value) in functions
                ]
    before = [(owner, name, vars(owner)[name]) for owner, name, _ in where]
    for owner, name, new in where:
        setattr(owner, name, new)
    return before


def put_back(before: Sequence[tuple[Any, str, Any]]) -> None:
    """As it was before :func:`replace`."""
    for owner, name, value in reversed(before):
        setattr(owner, name, value)


@contextmanager
def watched() -> Iterator[dict[str, Seen]]:
    """Counts and times every family inside; what runs within another of them is that one's. A thread that sleeps beside
    this one costs it nothing."""
    seen = {family: Seen() for family in FAMILIES}
    inside, here = set[int](), threading.get_ident()

    def timed(family: str) -> Callable[[Any], Any]:
        def make(function: Any) -> Any:
            @wraps(function)
            def call(*inputs: Any, **named: Any) -> Any:
                thread = threading.get_ident()
                if thread in inside or (family == "sleeping" and thread != here):
                    return function(*inputs, **named)
                inside.add(thread)
                began = time.perf_counter()
                try:
                    return function(*inputs, **named)
                finally:
                    inside.discard(thread)
                    seen[family].calls += 1
                    seen[family].seconds += time.perf_counter() - began

            return call

        return make

    before = replace_all([(path, timed(family)) for family, paths in FAMILIES.items() for path in paths])
    try:
        yield seen
    finally:
        put_back(before)


def silence(family: str, answer: Callable[..., Any]) -> int:
    """From now on the functions of a family do nothing but ``answer``.

    Args:
        answer: called in their place as ``answer(function, *inputs, **named)``.

    Returns:
        How many names were taken.
    """

    def make(function: Any) -> Any:
        return wraps(function)(lambda *inputs, **named: answer(function, *inputs, **named))

    return len(replace_all([(path, make) for path in FAMILIES[family]]))
