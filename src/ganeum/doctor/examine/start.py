"""How a training begins: its first loss, and whether what is computed while it trains is what should be."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ganeum.doctor.examine.watch import IGNORED, Loss, Seen
from ganeum.doctor.finding import Finding

ABOVE, BELOW = 0.2, 0.1  # of ln V, of a fresh model's first loss
NATS_ABOVE, NATS_BELOW = 1.0, 0.4  # and of it in nats: a small vocabulary's ln is small


def look(seen: Seen, fresh: bool) -> Iterator[Finding]:
    """All that the first micro-batches say."""
    if seen.error is not None and "nan values" in str(seen.error):  # anomaly detection was on, and stopped it
        yield Finding(
            cause="loss_nan",
            title="the way back makes values that are no numbers",
            evidence=(str(seen.error).splitlines()[0][:200],),
            change="a sqrt, log, norm or division of nothing; 0 · inf; an epsilon inside it",
            severity="error",
            sure="measured",
        )
        return
    first = next((_main(one.losses) for one in seen.passes if one.losses), None)
    if first is None:
        return
    if fresh and math.isfinite(first.mean):
        yield from _first(first)
    for number, one in enumerate(seen.passes, start=1):
        main = _main(one.losses) if one.losses else None
        if main is None or math.isfinite(main.mean) or bool((main.targets == IGNORED).all()):
            continue
        yield Finding(
            cause="loss_nan",
            title="the loss is no number" + (f" from micro-batch {number} on" if number > 1 else ""),
            evidence=(f"micro-batch {number} of {len(seen.passes)}; the first was {first.mean:.3g}",),
            change="a lower learning rate, or a warm-up; look at the batch itself where it is the first",
            severity="error",
            sure="measured",
        )
        return


def _main(losses: list[Loss]) -> Loss:
    return max(losses, key=lambda one: len(one.targets))


def _first(loss: Loss) -> Iterator[Finding]:
    usual = math.log(loss.classes)
    above, below = loss.mean - usual, usual - loss.mean
    if above > max(NATS_ABOVE, ABOVE * usual):
        evidence = [f"{loss.mean:.2f} nats, and a model that knows nothing has ln {loss.classes:,} = {usual:.2f}"]
        if loss.spread is not None:
            evidence.append(
                f"the logits of a place are {loss.spread:.3g} apart (standard deviation), which alone makes about "
                f"{loss.spread**2 / 2:.3g} nats"
            )
        yield Finding(
            cause="first_loss",
            title="the first loss of fresh weights is far too high: they are drawn too large",
            evidence=tuple(evidence),
            change="weights drawn with a deviation of 0.02, and those that write into the residual stream smaller "
            "(divided by √(2 layers)); a norm before the output layer",
            sure="measured",
            size=above,
            unit="nats",
        )
    elif below > max(NATS_BELOW, BELOW * usual):
        yield Finding(
            cause="first_loss",
            title="the first loss of fresh weights is too low: something tells it what is to come",
            evidence=(f"{loss.mean:.2f} nats, and a model that knows nothing has ln {loss.classes:,} = {usual:.2f}",),
            change="labels that are not shifted, attention that is not causal; or the weights are not fresh",
            sure="measured",
            size=below,
            unit="nats",
        )
