"""How many sequences at once, in training and in evaluation: as many as fit, and no more than bring speed.

These are estimates. Training proves them on the machine before step 0 (:mod:`ganeum.train.trial`).
"""

from __future__ import annotations

from ganeum import units
from ganeum.config.batch import divisors
from ganeum.config.schema import Config
from ganeum.hardware.device import Device
from ganeum.plan import memory
from ganeum.plan.memory import Memory

CPU_TOKENS = 4096  # at once; see choose
EVALUATION_TOKENS = 65_536  # at once on a GPU: by then it has long been busy
SHARE = 0.85  # of the usable memory: the estimate counts tensors only


def choose(config: Config, device: Device) -> tuple[int, str]:
    """The micro-batch for ``train.micro_batch_size: auto``, and the reason in words.

    It is the largest divisor of ``batch_size`` whose estimated memory (:mod:`ganeum.plan.memory`) stays within 85 % of
    what is usable. On a CPU it is at most 4,096 tokens, or one sequence: more of them at once only leave the caches,
    they fill no idle units. With nothing that fits it is 1, and the reason says that even that does not.

    Args:
        config: with ``model.vocab_size`` resolved.
    """
    batch_size, block_size = config.train.batch_size, config.model.block_size
    fitting = [size for size in divisors(batch_size) if fits(needed(config, device, size), device)]
    if not fitting:
        return 1, f"even one sequence needs about {_gib(needed(config, device, 1))}, and {_usable(device)} are usable"
    size = fitting[-1]
    capped = [s for s in fitting if s * block_size <= CPU_TOKENS] or [1]
    if device.kind == "cpu" and capped[-1] < size:
        size = capped[-1]
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
    """Whether an estimate leaves what an estimate must leave."""
    return needed.total <= SHARE * device.usable_gib * units.GIB


def needed(config: Config, device: Device, micro_batch_size: int) -> Memory:
    """The estimate of a training step on this device; ``auto`` counts as what it becomes there."""
    precision, loss_chunk = _settled(config, device)
    return memory.training(
        config, kind=device.kind, micro_batch_size=micro_batch_size, precision=precision, loss_chunk=loss_chunk
    )


def needed_to_evaluate(config: Config, device: Device, eval_batch_size: int) -> Memory:
    """The same of an evaluation."""
    precision, loss_chunk = _settled(config, device)
    return memory.evaluation(
        config, kind=device.kind, eval_batch_size=eval_batch_size, precision=precision, loss_chunk=loss_chunk
    )


def _settled(config: Config, device: Device) -> tuple[str, int]:
    train = config.train
    precision = device.fast_precision if train.precision == "auto" else train.precision
    return precision, memory.LOSS_CHUNK[device.kind] if train.loss_chunk == "auto" else train.loss_chunk


def _gib(needed: Memory) -> str:
    return units.gib(needed.total)


def _usable(device: Device) -> str:
    return f"{device.usable_gib:.2f} GiB"
