"""What a run needs, worked out before it starts; called, this package plans: `ganeum.plan("config.yaml")`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganeum.plan.trace.replay import Replayed


class _Plan(ModuleType):
    """The room is also the function: importing one of its files puts the room, a module, at `ganeum.plan`."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """What a run needs: see `ganeum.plan.library.plan`."""
        from ganeum.plan.library import plan

        return plan(*arguments, **options)


def predict_memory(build: Callable[[], Any], step: Callable[[Any], Any], gpu: str | None = None) -> Replayed:
    """The GPU memory of any training step, without the GPU and without running it: peak, what is there then, and why.

        def build():
            model = Net().to("cuda")
            return model, torch.optim.AdamW(model.parameters(), fused=True)

        def step(built):
            model, optimizer = built
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss = model(torch.randn(32, 3, 224, 224, device="cuda")).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        ganeum.plan.predict_memory(build, step, gpu="RTX 4090").peak_reserved

    Both functions really run, on tensors that have shapes and no numbers, as long as it takes to start their
    operations; ``cuda`` is the card that is meant, and ``torch.cuda.is_available()`` says yes. Two steps are taken,
    because an optimizer makes its state in the first. A number that is read (``loss.item()``) is a guess, and what
    was guessed stands in ``uncertain``; shapes that depend on numbers are refused.

    Args:
        build: makes the modules and whatever else a step needs.
        step: takes what ``build`` gave, and does one step with it.
        gpu: a card of the catalogue, as a person calls it (``"RTX 3080 12GB"``); None: this machine's device.

    Raises:
        TraceError: it cannot be traced; with the line.
        DeviceError: no such card is known.
    """
    from ganeum.plan.trace.anybody import predict

    return predict(build, step, gpu)


sys.modules[__name__].__class__ = _Plan
