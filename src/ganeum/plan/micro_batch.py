"""How many sequences at once: as many as fit, and on a CPU no more than bring speed."""

from __future__ import annotations

from ganeum import units
from ganeum.config.batch import divisors
from ganeum.config.schema import Config
from ganeum.hardware.device import Device
from ganeum.plan import memory, parameters

CPU_TOKENS = 4096  # at once; see choose
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
    sizes = divisors(batch_size)
    fitting = [size for size in sizes if needed_bytes(config, device, size) <= SHARE * device.usable_gib * units.GIB]
    if not fitting:
        needed = units.gib(needed_bytes(config, device, 1))
        return 1, f"even one sequence needs about {needed}, and {device.usable_gib:.2f} GiB are usable"
    size = fitting[-1]
    capped = [s for s in fitting if s * block_size <= CPU_TOKENS] or [1]
    if device.kind == "cpu" and capped[-1] < size:
        size = capped[-1]
        return size, f"{size * block_size:,} tokens at once keep this CPU busy; more bring no speed"
    needed = units.gib(needed_bytes(config, device, size))
    room = f"about {needed} of {device.usable_gib:.2f} GiB usable"
    return size, f"the whole batch fits at once: {room}" if size == batch_size else f"the largest that fits: {room}"


def needed_bytes(config: Config, device: Device, micro_batch_size: int) -> float:
    """The estimate for one micro-batch size on this device; ``auto`` counts as what it becomes there."""
    model, train = config.model, config.train
    assert isinstance(model.vocab_size, int), "vocab_size is resolved before memory is estimated"
    return memory.estimate(
        model,
        model.vocab_size,
        parameters.count(model, model.vocab_size),
        kind=device.kind,
        micro_batch_size=micro_batch_size,
        precision=device.fast_precision if train.precision == "auto" else train.precision,
        loss_chunk=memory.LOSS_CHUNK[device.kind] if train.loss_chunk == "auto" else train.loss_chunk,
    ).total
