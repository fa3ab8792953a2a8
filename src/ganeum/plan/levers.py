"""What would make a run fit that does not: each lever by what one types, what is then needed, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import ValidationError

from ganeum import units
from ganeum.config.change import change
from ganeum.config.schema import Config
from ganeum.hardware.device import Device
from ganeum.plan import micro_batch
from ganeum.plan.execution import LOSS_CHUNK
from ganeum.plan.memory import Memory

SMALL_CHUNK = 128  # rows: a CPU's cores and a GPU's still have something to multiply
SHORTEST, RANK = 64, 16  # tokens of context; of LoRA's adapters


@dataclass(frozen=True)
class Lever:
    """``settings``: dotted keys and their values; ``cost``: in words; ``bytes``: needed then, one sequence at once;
    ``most``: the upper bound of that."""

    settings: Mapping[str, Any]
    cost: str
    bytes: float
    most: float

    def __str__(self) -> str:
        """As one types it: ``train.optimizer=muon train.loss_chunk=128``."""
        return " ".join(f"{key}={_typed(value)}" for key, value in self.settings.items())


def that_fit(config: Config, device: Device, fits: Callable[[Lever], bool]) -> list[Lever]:
    """Levers with which one sequence at once fits; the cheapest first.

    First those that leave model and text as they are, each alone, three at most; where none of them is enough, as few
    of them as are together; then a shorter context, LoRA where there are weights to start from, and at last a smaller
    model.

    Args:
        config: with ``model.vocab_size`` resolved.
        fits: decides for one lever: :func:`by_estimate`, or a trial.
    """
    now, _ = _bytes(config, device, {})

    def weighed(settings: Mapping[str, Any], cost: str) -> Lever:
        return Lever(settings, cost, *_bytes(config, device, settings))

    kept = [weighed({key: value}, cost) for key, value, cost in keeping(config, device)]
    kept = [lever for lever in kept if lever.bytes < now]
    fitting = list(islice(filter(fits, kept), 3))
    if not fitting and (together := _together(kept, weighed, fits)):
        fitting = [together]
    for kind in (_shorter, _lora, _smaller):
        fitting += islice((lever for way in kind(config) if fits(lever := weighed(*way))), 1)
    return fitting


def by_estimate(most_bytes: float) -> Callable[[Lever], bool]:
    """For :func:`that_fit`: even the upper bound of what is needed is no more than that."""
    return lambda lever: lever.most <= most_bytes


def table(levers: list[Lever]) -> str:
    """A line for each: what to type, GiB, what it costs."""
    wide = max((len(str(lever)) for lever in levers), default=0)
    return "\n".join(f"{lever!s:<{wide}}  {units.gib(lever.bytes)}: {lever.cost}" for lever in levers)


def needs(memory: Memory) -> str:
    """``weights 0.50, optimizer 1.00, …`` in GiB, what there is of it."""
    parts = {**memory.parts, "framework": memory.framework}
    return ", ".join(f"{name} {size / units.GIB:.2f}" for name, size in parts.items() if size / units.GIB >= 0.005)


def keeping(config: Config, device: Device) -> Iterator[tuple[str, Any, str]]:
    """Key, value and cost of each lever that leaves model and text as they are, as far as it is not pulled yet."""
    train = config.train
    if (LOSS_CHUNK[device.kind] if train.loss_chunk == "auto" else train.loss_chunk) > SMALL_CHUNK:
        yield "train.loss_chunk", SMALL_CHUNK, "the same result, a little slower"
    if train.activation_checkpointing in ("auto", "none"):
        yield "train.activation_checkpointing", "selective", "the same result; the MLPs are computed twice"
    if train.activation_checkpointing != "whole":
        yield "train.activation_checkpointing", "whole", "the same result; a third more arithmetic"
    if train.optimizer_offload is False and device.kind == "cuda":
        yield (
            "train.optimizer_offload",
            True,
            "the same result; the state lies in the CPU's memory, and each update waits for it",
        )
    if train.optimizer == "adamw":
        yield "train.optimizer", "adamw8bit", "AdamW with its state in 8 bits"
        yield "train.optimizer", "muon", "half of AdamW's state for the matrices"
    if train.weights == "fp32":
        yield "train.weights", "bf16", "weights and gradients in 16 bits, rounded stochastically"
    if train.optimizer in ("adamw", "adamw8bit", "muon"):
        yield "train.optimizer", "adafactor", "next to no state; another optimizer wants another learning rate"


def _together(
    levers: list[Lever], weighed: Callable[[Mapping[str, Any], str], Lever], fits: Callable[[Lever], bool]
) -> Lever | None:
    """As few of them as are enough, the cheapest; of two values of a key, the one that needs less. None: too few."""
    best: dict[str, Lever] = {}
    for lever in levers:
        (key,) = lever.settings
        if key not in best or lever.bytes < best[key].bytes:
            best[key] = lever

    def joined(chosen: list[Lever]) -> Lever:
        settings = {key: value for lever in chosen for key, value in lever.settings.items()}
        return weighed(settings, "together: " + "; ".join(lever.cost for lever in chosen))

    if len(best) < 2 or not fits(joined(list(best.values()))):
        return None
    for key in reversed(list(best)):  # the dearest go first, where it fits without them
        without = [lever for name, lever in best.items() if name != key]
        if len(without) > 1 and fits(joined(without)):
            del best[key]
    return joined(list(best.values()))


def _shorter(config: Config) -> Iterator[tuple[dict[str, Any], str]]:
    if config.model.source is not None:
        yield from _cut(config)
        return
    length = config.model.block_size // 2
    while length >= SHORTEST:
        yield {"model.block_size": length}, "a shorter context"
        length //= 2


def _cut(config: Config) -> Iterator[tuple[dict[str, Any], str]]:
    """Both of what is read and what is written, since either may be what needs most."""
    source, target = config.data.max_length // 2, config.data.max_target_length
    while source >= SHORTEST:
        target = min(target, max(SHORTEST, source))
        said = {} if target == config.data.max_target_length else {"data.max_target_length": target}
        yield {"data.max_length": source, **said}, "longer examples are cut"
        source //= 2


def _lora(config: Config) -> Iterator[tuple[dict[str, Any], str]]:
    start = config.train.init_from or (None if config.model.fresh else config.model.source)
    if start is not None and config.train.lora.rank is None:
        yield {"train.lora.rank": RANK}, f"only adapters are trained, on the weights of {start}"


def _smaller(config: Config) -> Iterator[tuple[dict[str, Any], str]]:
    """Fewer layers, then half the width, and so on; a head keeps its width. Somebody else's model is as it is."""
    if config.model.source is not None:
        return
    layers, width, heads = config.model.n_layer, config.model.n_embd, config.model.n_head
    while True:
        for fewer in range(layers * 3 // 4, 0, -max(1, layers // 4)):
            settings: dict[str, Any] = {"model.n_layer": fewer}
            if width != config.model.n_embd:
                settings |= {"model.n_embd": width, "model.n_head": heads}
            yield settings, "a smaller model"
        if width % 2 or heads % 2 or config.model.head_dim or config.model.n_kv_head or config.model.intermediate_size:
            return
        width, heads = width // 2, heads // 2


def _bytes(config: Config, device: Device, settings: Mapping[str, Any]) -> tuple[float, float]:
    """What is needed, and its upper bound."""
    try:
        needed = micro_batch.needed(change(config, settings), device, 1)
    except ValidationError:  # keys that the schema does not let stand together
        return float("inf"), float("inf")
    return needed.total, needed.most


def _typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
