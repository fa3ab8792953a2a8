"""ganeum sizes up, trains, queues and explains language-model runs on the one GPU you have.

As a library: `from ganeum import train, plan, load_run` (docs/library.md). Importing it loads none of the rooms.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from ganeum.config.load import load as load_config
    from ganeum.plan.library import plan
    from ganeum.train.callbacks import Callback, StopTraining
    from ganeum.train.library import load_run, train
    from ganeum.train.stages import split

__all__ = ["Callback", "StopTraining", "__version__", "load_config", "load_run", "plan", "split", "train"]

_PLACES = {
    "Callback": ("ganeum.train.callbacks", "Callback"),
    "StopTraining": ("ganeum.train.callbacks", "StopTraining"),
    "load_config": ("ganeum.config.load", "load"),
    "load_run": ("ganeum.train.library", "load_run"),
    "split": ("ganeum.train.stages", "split"),
}


def __getattr__(name: str) -> Any:
    """The names of the library, each from its room once somebody asks for it."""
    if name in ("plan", "train"):  # rooms that can be called
        return import_module(f"ganeum.{name}")
    if name == "__version__":
        from importlib.metadata import version

        return version("ganeum")
    if name not in _PLACES:
        raise AttributeError(f"module 'ganeum' has no attribute {name!r}")
    room, attribute = _PLACES[name]
    return getattr(import_module(room), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
