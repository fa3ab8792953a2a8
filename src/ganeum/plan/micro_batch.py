"""How many sequences at once, in training and in evaluation: as many as fit, and no more than bring speed.

These are estimates. Training proves them on the machine before step 0 (:mod:`ganeum.train.trial`).
"""

from __future__ import annotations

from ganeum import units
from ganeum.config.batch import divisors
from ganeum.config.schema import Config
from ganeum.hardware.device import Device
from ganeum.plan import execution, memory
from ganeum.plan.architecture import ours
from ganeum.plan.memory import Memory

CPU_TOKENS = 4096  # at once; see choose
EVALUATION_TOKENS = 65_536  # at once on a GPU: by then it has long been busy


def choose(config: Config, device: Device) -> tuple[int, str]:
    """The micro-batch for ``train.micro_batch_size: auto``, and the reason in words.

    It is the largest divisor of ``batch_size`` with which even the upper bound of what is needed
    (:mod:`ganeum.plan.memory`) is usable. On a CPU it is at most 4,096 tokens, or one sequence: more of them at once only leave the caches,
    they fill no idle units. With nothing that fits it is 1, and the reason says that even that does not.

    Args:
        config: with ``model.vocab_size`` resolved.
    """
    batch_size, block_size = config.train.batch_size, config.model.block_size
    falling = divisors(batch_size)[::-1]
    size = next((size for size in falling if fits(needed(config, device, size), device)), None)
    if size is None:
        return 1, f"even one sequence needs about {_gib(needed(config, device, 1))}, and {_usable(device)} are usable"
    if device.kind == "cpu" and size * block_size > CPU_TOKENS and size > 1:
        size = next((smaller for smaller in falling if smaller * block_size <= CPU_TOKENS), 1)
        return size, f"{size * block_size:,} tokens at once keep this CPU busy; more bring no speed"
    room = f"about {_gib(needed(config, device, size))} of {_usable(device)} usable"
    return size, f"the whole batch fits at once: {room}" if size == batch_size else f"the largest that fits: {room}"


def choose_for_evaluation(config: Config, device: Device) -> tuple[int, str]:
    """The same for ``train.eval_batch_size: auto``: without a backward pass more sequences fit at once.

    It is the micro-batch, doubled as long as it fits, holds no more tokens than keep the device busy, and is no more
    than the validation set.

    Args:
        config: with ``model.vocab_size`` and ``train.micro_batch_size`` resolved.
    """
    size, block_size, every = config.train.micro_batch_size, config.model.block_size, config.train.eval_tokens
    assert size != "auto", "resolved before"
    most = CPU_TOKENS if device.kind == "cpu" else EVALUATION_TOKENS
    most = most if every == "all" else min(most, every)
    doubled = size
    while 2 * doubled * block_size <= most and fits(needed_to_evaluate(config, device, 2 * doubled), device):
        doubled *= 2
    if doubled == size:
        busy = 2 * size * block_size > most
        return size, "as training: more " + ("bring no speed" if busy else "would not fit")
    room = f"about {_gib(needed_to_evaluate(config, device, doubled))} of {_usable(device)} usable"
    return doubled, f"{doubled // size} times the micro-batch, without a backward pass: {room}"


def fits(needed: Memory, device: Device) -> bool:
    """Whether the device has room for what may be needed at most."""
    return needed.fits(device)


def needed(config: Config, device: Device, micro_batch_size: int) -> Memory:
    """What a training step takes on this device; ``auto`` counts as what it becomes there."""
    return memory.of(ours.architecture(config.model), execution.of(config, device, micro_batch_size))


def needed_to_evaluate(config: Config, device: Device, eval_batch_size: int) -> Memory:
    """The same of an evaluation between two steps."""
    evaluation = execution.of(config, device, eval_batch_size, purpose="evaluation")
    return memory.of(ours.architecture(config.model), evaluation)


def _gib(needed: Memory) -> str:
    return units.gib(needed.total)


def _usable(device: Device) -> str:
    return f"{device.usable_gib:.2f} GiB"
