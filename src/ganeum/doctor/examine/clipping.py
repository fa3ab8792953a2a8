"""Gradients that are clipped at the wrong moment, or always."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from ganeum.doctor.examine.seen import Seen
from ganeum.doctor.finding import Finding

ENOUGH = 3  # updates
CLIPPED = 20.0  # times the norm that it is clipped to


def look(seen: Seen) -> Iterator[Finding]:
    """All that the updates' clipping says."""
    if seen.error is not None or not seen.updates:
        return
    many = len(seen.updates) >= ENOUGH
    if many and all(update.early and update.norm > 0 for update in seen.updates):
        yield Finding(
            cause="gradient_norm",
            title="gradients are clipped before there are any",
            evidence=(
                f"clip_grad_norm_() found none before each of {len(seen.updates)} updates, and was not called behind "
                "backward()",
            ),
            change="clip_grad_norm_() between backward() and optimizer.step()",
            sure="measured",
        )
    clipped = [update for update in seen.updates if update.clip and math.isfinite(update.norm)]
    cut = [update.norm / update.clip for update in clipped if update.clip]
    if not cut or min(cut) <= CLIPPED:
        return
    scaled = [update for update in clipped if update.scale > 1]
    if many and len(scaled) == len(seen.updates):
        one = scaled[0]
        yield Finding(
            cause="gradient_norm",
            title="gradients are clipped while they are still multiplied by the loss scale",
            evidence=(
                f"a norm of {one.norm / one.scale:.3g} times a scale of {one.scale:g} is cut to {one.clip:g}; then the "
                "scale is taken off",
                "Adam hides a constant factor but for its epsilon; the size of a gradient says nothing any more",
            ),
            change="scaler.unscale_(optimizer) before clip_grad_norm_()",
            sure="measured",
            size=median(cut),
            unit="times too small",
        )
        return
    yield Finding(
        cause="gradient_norm",
        title=f"clipping cuts every gradient to 1/{median(cut):.0f}",
        evidence=(f"{len(cut)} updates in a row; only the direction is left of them",),
        change="look whether the loss is summed instead of averaged; a higher limit otherwise",
        severity="note",
        sure="measured",
    )
