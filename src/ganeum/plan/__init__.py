"""What a run needs, worked out before it starts; called, this package plans: `ganeum.plan("config.yaml")`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Plan(ModuleType):
    """The room is also the function: importing one of its files puts the room, a module, at `ganeum.plan`."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """What a run needs: see `ganeum.plan.library.plan`."""
        from ganeum.plan.library import plan

        return plan(*arguments, **options)


sys.modules[__name__].__class__ = _Plan
