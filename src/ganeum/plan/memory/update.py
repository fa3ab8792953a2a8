"""What an update of our own optimizers computes on the way (step/rules.py), piece by piece of the weights."""

from __future__ import annotations

from collections import Counter

from ganeum.plan.architecture.parts import Architecture
from ganeum.plan.execution import Execution
from ganeum.plan.memory.state import PIECE, STACK, Weight, trained

# Numbers in fp32 that a rule holds at one time for each weight of a piece, the gradient among them; one more for
# weights in bf16, which are copied. A test measures them.
NUMBERS = {"adamw": 6, "adamw8bit": 8, "sgd": 4, "adafactor": 7}
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
    """Adafactor takes a weight as a whole, the others ``PIECE`` numbers of it."""
    fused = optimizer == "adamw" and execution.weights == "fp32" and execution.offload == "none"
    if fused or not weights:
        return 0.0
    largest = max(weight.each for weight in weights)
    numbers = NUMBERS[optimizer] if optimizer != "sgd" or execution.momentum else WITHOUT_MOMENTUM
    numbers += execution.weights != "fp32"
    return 4.0 * numbers * (largest if optimizer == "adafactor" else min(PIECE, largest))


def _stacks(architecture: Architecture, execution: Execution, weights: list[Weight]) -> float:
    """Muon's: weights, gradients and momenta of equal matrices (k, A, B) are stacked in fp32; the Newton–Schulz steps
    hold three of their size and two squares of the shorter side in the format of products. A single matrix in fp32 is
    not copied."""
    (block,) = architecture.blocks
    (attention,) = block.attentions
    alike: Counter[tuple[int, int]] = Counter()
    for weight in weights:
        rows, columns = weight.shape
        if rows == attention.queries + 2 * attention.keys:  # each is a matrix of its own
            alike[attention.queries, columns] += weight.count
            alike[attention.keys, columns] += 2 * weight.count
        else:
            alike[rows, columns] += weight.count
    wide = 0.5 if execution.half else 1.0
    most = 0.0
    for (rows, columns), count in alike.items():
        each = rows * columns
        k = min(count, max(1, STACK // each))
        copied = k > 1 or execution.weights != "fp32"
        steps = max(2.0, wide * (3 + 2 * min(rows, columns) / max(rows, columns)))
        most = max(most, 4.0 * k * each * (2 + copied + steps))
    return most
