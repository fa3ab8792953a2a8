"""The loop above the step: checkpoints, evaluation, samples, logging, interruption. Called, this package trains."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Train(ModuleType):
    """The room is also the function: importing one of its files puts the room, a module, at `ganeum.train`."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Trains: see `ganeum.train.library.train`."""
        from ganeum.train.library import train

        return train(*arguments, **options)


sys.modules[__name__].__class__ = _Train
