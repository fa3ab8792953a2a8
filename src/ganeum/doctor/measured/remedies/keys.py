"""Remedies for a run of ours: keys whose change may help, each leaving the rest as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ganeum.config import Config
from ganeum.config.batch import divisors
from ganeum.config.change import change
from ganeum.config.checks import contradictions
from ganeum.config.keys import keys as all_keys
from ganeum.doctor.measured.remedies.promise import Facts, gained
from ganeum.doctor.measured.remedy import Remedy


def of_keys(config: Config, facts: Facts) -> Iterator[Remedy]:
    """Keys of a config whose change may help; each leaves the rest as it is, and contradicts nothing of it."""
    before = _contradictions(config)
    return (one for one in _promising(config, facts) if _contradictions(change(config, one.keys)) <= before)


def _contradictions(config: Config) -> set[str]:
    return {error.what for error in contradictions(config, {}, settled=frozenset(all_keys()), where="")}


def _promising(config: Config, facts: Facts) -> Iterator[Remedy]:
    train, gpu = config.train, facts["device"] == "cuda"
    best = "bf16" if facts["bf16"] else "fp16" if gpu and (facts["capability"] or (0, 0)) >= (7, 0) else "fp32"
    if train.precision != best:
        slow = train.precision in ("fp32", "tf32")
        yield _key(
            best,
            "fp32" if slow else "bf16_emulated",
            {"train.precision": best},
            group="precision",
            promise=1.6 if gpu else 1.3,
        )
    if gpu and train.precision == "fp32" and (facts["capability"] or (0, 0)) >= (8, 0):
        yield _key("TF32", "tf32_off", {"train.precision": "tf32"}, group="precision", promise=1.5)
    yield from _micro_batches(config, facts)
    if config.model.source is not None:
        yield from _batching(config, facts)
    if train.activation_checkpointing != "none":
        yield _key(
            "nothing recomputed",
            "checkpointing_for_nothing",
            {"train.activation_checkpointing": "none"},
            promise=1.3,
        )
    if train.optimizer_offload and gpu:
        yield _key("optimizer on the GPU", "checkpointing_for_nothing", {"train.optimizer_offload": False}, promise=1.3)
    if train.zero.stage >= 2:
        beside = {"train.zero.weights_offload": False} if train.zero.weights_offload else {}
        yield _key("without DeepSpeed", "data_parallel", {"train.zero.stage": 0, **beside}, promise=1.2)
    usual = 2_048 if gpu else 512
    if train.loss_chunk != usual:
        yield _key("loss_chunk", "logits", {"train.loss_chunk": "auto"}, promise=1.1)
    if train.compile is True:
        yield _key("not compiled", "recompiles", {"train.compile": False}, group="compiling", promise=1.02)
    elif facts["cannot_compile"] is None and gpu:
        yield _key("compiled", "not_compiled", {"train.compile": True}, group="compiling", promise=1.3)
    if train.optimizer in ("adafactor", "adamw8bit", "muon") or train.weights == "bf16":
        yield _key(
            "AdamW in fp32",
            "slow_optimizer",
            {"train.optimizer": "adamw", "train.weights": "fp32"},
            same_learning=False,
            promise=1.05,
        )
    if gpu and train.expandable_segments is False:
        yield _key("expandable segments", "fragmentation", {"train.expandable_segments": "auto"}, promise=1.01)


def _batching(config: Config, facts: Facts) -> Iterator[Remedy]:
    """Fewer places that hold nothing; what ``auto`` would choose is the more promising."""
    now, most = config.data.batching, gained(facts["padding"])
    promises = {"packed": most, "buckets": 1 + (most - 1) * (0.8 if facts["packed_by_itself"] else 1.1)}
    if not facts["packable"]:
        del promises["packed"]
    for way, promise in promises.items():
        if now in ("fixed", "padded") or (way == "packed" and now == "buckets" and facts["packed_by_itself"]):
            yield _key(way, "padding", {"data.batching": way}, group="batching", promise=max(promise, 1.01))


def _micro_batches(config: Config, facts: Facts) -> Iterator[Remedy]:
    """What the plan would choose, twice as many sequences at once, and on a CPU, whose cache is small, also fewer."""
    size, whole = config.train.micro_batch_size, config.train.batch_size
    assert size != "auto", "resolved before"
    planned = facts.get("planned_at_once") or size
    fewer = [n for n in divisors(whole) if n < size][-1:] if facts["device"] == "cpu" else []
    promises = {planned: 1.4 if size < 8 else 1.15, 2 * size: 1.35 if size < 8 else 1.1, **dict.fromkeys(fewer, 1.01)}
    for n, promise in promises.items():
        if n != size and (config.train.batch_tokens is not None or whole % n == 0):
            yield _key(
                f"{n} at once",
                "small_micro_batch" if n > size else "large_micro_batch",
                {"train.micro_batch_size": n},
                group="micro-batch",
                promise=promise if n > size else 1.01,
            )


def _key(name: str, cause: str, keys: Mapping[str, Any], **more: Any) -> Remedy:
    change = ", ".join(
        f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in keys.items()
    )
    return Remedy(name=name, cause=cause, change=change, keys=keys, **more)
