"""What an update of our own optimizers computes on the way (step/rules.py), piece by piece of the weights."""

from __future__ import annotations

from collections import Counter

from ganeum.plan.architecture.parts import Architecture
from ganeum.plan.execution import Execution
from ganeum.plan.memory.state import PIECE, STACK, Weight, trained

# Numbers in fp32 that a rule holds at one time for each weight of a piece, the gradient among them; weights in bf16 are
# copied, so one more. A test measures them.
NUMBERS = {"adamw": 6, "adamw8bit": 8, "sgd": 4, "adafactor": 6}
WITHOUT_MOMENTUM = 3  # SGD


def of(architecture: Architecture, execution: Execution) -> float:
    """Bytes beside weights, gradients and state at an update's fullest moment.

    torch's fused AdamW, which moves weights in fp32 unless their state is elsewhere, needs none.
    """
    weights = trained(architecture, execution)
    if execution.optimizer != "muon":
        return _by_pieces(execution, execution.optimizer, weights)
    matrices = [weight for weight in weights if weight.role in ("matrix", "adapter")]
    others = tuple(weight for weight in weights if weight not in matrices)
    return max(_by_pieces(execution, "adamw", others), _stacks(architecture, execution, matrices))


def _by_pieces(execution: Execution, optimizer: str, weights: tuple[Weight, ...]) -> float:
    """``PIECE`` numbers of a weight at most; Adafactor takes as many of a matrix's rows."""
    fused = optimizer == "adamw" and execution.weights == "fp32" and execution.offload == "none"
    if fused or not weights:
        return 0.0
    holds = NUMBERS[optimizer] if optimizer != "sgd" or execution.momentum else WITHOUT_MOMENTUM
    copied = execution.weights != "fp32"
    return 4.0 * (holds + copied) * min(PIECE, max(weight.each for weight in weights))


def _stacks(architecture: Architecture, execution: Execution, weights: list[Weight]) -> float:
    """Muon's: weights, gradients and momenta of equal matrices (k, A, B) are stacked in fp32; the Newton–Schulz steps
    hold three of their size and two squares of the shorter side in the format of products. A single matrix in fp32 is
    not copied."""
    attention = architecture.blocks[0].attentions[0]
    alike: Counter[tuple[int, int]] = Counter()
    for weight in weights:
        rows, columns = weight.shape
        if architecture.implementation == "ganeum" and rows == attention.queries + 2 * attention.keys:
            alike[attention.queries, columns] += weight.count  # each is a matrix of its own
            alike[attention.keys, columns] += 2 * weight.count
        else:
            alike[rows, columns] += weight.count
    wide, narrow = 0.5 if execution.half else 1.0, execution.weights != "fp32"
    most = 0.0
    for (rows, columns), count in alike.items():
        each = rows * columns
        most_at_once = max(1, STACK // each)
        steps = max(2.0, wide * (3 + 2 * min(rows, columns) / max(rows, columns)))
        for start in range(0, count, most_at_once):
            k = min(most_at_once, count - start)
            copied = k > 1 or narrow
            most = max(most, (2 + copied + steps) * k * each)
    return 4.0 * most
