"""What so many sequences at once need, and how many an evaluation takes; those of training: :mod:`ganeum.plan.fastest`.

These are estimates. Training proves them on the machine before step 0 (:mod:`ganeum.train.trial`).
"""

from __future__ import annotations

from ganeum import units
from ganeum.config.schema import Config
from ganeum.hardware.device import Device
from ganeum.plan import execution, memory
from ganeum.plan.architecture import configured
from ganeum.plan.memory import Memory

CPU_TOKENS = 4096  # at once: more of them only leave the caches, they fill no idle units (docs/plan.md)
EVALUATION_TOKENS = 65_536  # at once on a GPU: by then it has long been busy


def choose_for_evaluation(config: Config, device: Device) -> tuple[int, str]:
    """The value of ``train.eval_batch_size: auto``, and the reason: without a backward pass more sequences fit at once.

    It is the micro-batch, doubled as long as it fits, holds no more tokens than keep the device busy, and is no more
    than the validation set.

    Args:
        config: with ``model.vocab_size`` and ``train.micro_batch_size`` resolved.
    """
    size, every = config.train.micro_batch_size, config.train.eval_tokens
    one = execution.of(config, device, 1)
    length = one.length + one.source_length
    assert size != "auto", "resolved before"
    most = CPU_TOKENS if device.kind == "cpu" else EVALUATION_TOKENS
    most = most if every == "all" else min(most, every)
    doubled = size
    while 2 * doubled * length <= most and fits(needed_to_evaluate(config, device, 2 * doubled), device):
        doubled *= 2
    if doubled == size:
        busy = 2 * size * length > most
        return size, "as training: more " + ("bring no speed" if busy else "would not fit")
    room = f"about {_gib(needed_to_evaluate(config, device, doubled))} of {_usable(device)} usable"
    return doubled, f"{doubled // size} times the micro-batch, without a backward pass: {room}"


def fits(needed: Memory, device: Device) -> bool:
    """Whether the device has room for what may be needed at most."""
    return needed.fits(device)


def needed(config: Config, device: Device, micro_batch_size: int) -> Memory:
    """What a training step takes on this device; ``auto`` counts as what it becomes there."""
    return memory.of(configured.of(config), execution.of(config, device, micro_batch_size))


def needed_to_evaluate(config: Config, device: Device, eval_batch_size: int) -> Memory:
    """The same of an evaluation between two steps."""
    evaluation = execution.of(config, device, eval_batch_size, purpose="evaluation")
    return memory.of(configured.of(config), evaluation)


def _gib(needed: Memory) -> str:
    return units.gib(needed.total)


def _usable(device: Device) -> str:
    return f"{device.usable_gib:.2f} GiB"
