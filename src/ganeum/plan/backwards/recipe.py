"""The batch and the learning rate for a model's size and the tokens it sees: Step Law, checked by others' sweeps.

Li et al. 2025 (arXiv 2503.04715) trained 3,700 models of 60M to 1B parameters on 2B to 100B tokens, with AdamW,
RMSNorm, SwiGLU and a schedule that ends at 1e-5, over grids of batch and rate. A sweep by somebody else, down to 46M
parameters and 128M tokens, found the same rates within a factor of √2 or so (docs/backwards.md).
"""

from __future__ import annotations

import math

FINAL_RATE = 1e-5  # where the schedule ended in their trainings
HIGHEST_RATE = 4e-3  # no sweep found a higher one best; the formula would go on rising for smaller models


def batch_tokens(tokens: float) -> float:
    """Tokens in a step's batch: 0.58 · D^0.571. The loss is flat around it: half or twice as many cost little.

    >>> round(batch_tokens(2e9), -3)
    119000.0
    """
    return 0.58 * math.pow(tokens, 0.571)


def learning_rate(n_params: float, tokens: float) -> float:
    """AdamW's peak rate: 1.79 · N^−0.713 · D^0.307, and no more than 4e-3.

    Args:
        n_params: without embeddings and head, as they count.
        tokens: those seen.
    """
    return min(HIGHEST_RATE, 1.79 * math.pow(n_params, -0.713) * math.pow(tokens, 0.307))
