"""The learning rate of each step: a linear warm-up, then cosine, constant with linear decay (wsd), or constant."""

from __future__ import annotations

import math

from ganeum.config.schema import Train


def warmup_iters(train: Train, total: int) -> int:
    """Steps of warm-up; ``auto``: 2 % of all, at least 10 and at most 2,000, and never more than half of them. A share
    of all steps is rounded up, as Hugging Face's ``warmup_ratio`` is."""
    given = train.warmup_iters
    if given != "auto":
        return given if isinstance(given, int) else math.ceil(given * total)
    return min(max(total // 50, 10), 2_000, total // 2)


def min_learning_rate(train: Train) -> float:
    """Where cosine and wsd end; ``auto`` is a tenth of the peak (Hoffmann et al. 2022, appendix B)."""
    return float(f"{train.learning_rate / 10:.6g}") if train.min_learning_rate == "auto" else train.min_learning_rate


def learning_rate(step: int, train: Train, total: int) -> float:
    """The learning rate of the update that follows ``step`` completed ones, in a run of ``total`` updates.

    - warm-up: ``peak · (step + 1) / (warmup + 1)``, so that the first update already moves the weights.
    - ``cosine``: from the peak to the minimum along half a cosine (Loshchilov & Hutter 2017, eq. 5), over the steps
      after the warm-up.
    - ``wsd``: the peak, then a straight line to the minimum over the last ``decay_share`` of all steps
      (Hu et al. 2024, section 4.2; Hägele et al. 2024).
    - ``constant``: the peak.

    Beyond ``total`` it stays where the schedule ended.
    """
    peak, low, warmup = train.learning_rate, min_learning_rate(train), warmup_iters(train, total)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if train.schedule == "constant":
        return peak
    start = warmup if train.schedule == "cosine" else max(warmup, total - round(train.decay_share * total))
    done = min(max(step - start, 0) / max(total - start, 1), 1.0)
    share = 0.5 * (1 + math.cos(math.pi * done)) if train.schedule == "cosine" else 1 - done
    return low + share * (peak - low)
