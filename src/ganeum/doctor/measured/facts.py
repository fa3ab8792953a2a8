"""What a training is and does, by which remedies are chosen: looked up, and seen in a few of its own steps."""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import DataLoader

from ganeum import hardware
from ganeum.config import Config
from ganeum.config.change import change
from ganeum.doctor.measured import by_hand, closures, fetching, host, kernels, lines, tensors
from ganeum.doctor.measured.acts.attention import READS, configs, theirs
from ganeum.doctor.measured.acts.data import copied, empty_share
from ganeum.doctor.measured.acts.host import hooks, trims
from ganeum.doctor.measured.acts.optimizer import HAVE_FUSED, not_updated
from ganeum.doctor.measured.acts.vocabulary import occurring
from ganeum.doctor.measured.acts.work import CHECKPOINT
from ganeum.doctor.measured.ours import Ours
from ganeum.doctor.measured.remedies.promise import FETCH
from ganeum.doctor.measured.tensors import IGNORED
from ganeum.doctor.measured.training import Training
from ganeum.doctor.measured.untouched import around_entry, updaters
from ganeum.doctor.measured.watch import put_back, replace_all, watched
from ganeum.errors import GaneumError
from ganeum.plan import fastest

LOOKED_AT, LOOK_S = 4, 3.0  # steps; seconds after which no further one is taken
MICRO = "train.micro_batch_size"
PROBED = 8  # batches whose shapes are looked at


def of(training: Training) -> dict[str, Any]:
    """Plain values only; a few steps are taken for it, and everything that was put in their way is gone afterwards."""
    at = next(training.model.parameters()).device
    found = host.of(at) | _model(training) | _optimizer(training) | _batches(training)
    found |= _seen(training, at)
    if not isinstance(training, Ours) and not found["compiled"]:
        found["fetching"] = fetching.of(training) if found["data_share"] > FETCH else None
        with suppress(Exception):  # some code bears no modes of torch's: then nothing is told of its lines
            if found["closure"]:
                batches = map(copied, training.batches)
                found["closure_again_share"] = closures.again_share(training, batches, lambda: _wait(at))
            found |= lines.of(training)
            found["kernels"] = kernels.of(training)
            if not (found["sdpa_replaced"] or "eager" in found["attention"]):  # they have a remedy that tells more
                found["by_hand"] = by_hand.of(training)
    if isinstance(training, Ours) and training.config is not None:
        found |= {"ours": True, "decided": training.config.model_dump(), "planned_at_once": _planned(training.config)}
        found |= _rows(training, training.config)
    return found


def _rows(training: Ours, config: Config) -> dict[str, Any]:
    """Of examples: the share of places that hold nothing; whether the model can pack rows, and ``auto`` would."""
    examples, size = getattr(training.material, "examples", None), config.train.micro_batch_size
    if examples is None or size == "auto":
        return {}
    packs = examples.learner.packs
    return {
        "padding": examples.batches(config).padding(size, steps=PROBED),
        "packable": packs > 0,
        "packed_by_itself": max(examples.layout.room) <= packs,
    }


def _planned(config: Config) -> int | None:
    """The micro-batch that the plan would choose."""
    device = hardware.detect(config.device)
    try:
        keys, _ = fastest.choose(change(config, {MICRO: "auto"}), device)
    except GaneumError:
        return None
    return keys.get(MICRO)


def _model(training: Training) -> dict[str, Any]:
    model, kinds = training.model, [str(p.dtype).removeprefix("torch.") for p in training.model.parameters()]
    known = configs(model)
    modules = list(model.modules())
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtypes": sorted(set(kinds)),
        "theirs": bool(theirs(model)),
        "attention": sorted({str(getattr(c, "_attn_implementation", None)) for c in known} - {"None"}),
        "use_cache": any(getattr(c, "use_cache", False) for c in known),
        "reads": [name for name in READS if any(getattr(c, name, False) for c in known)],
        "vocabulary": next((c.vocab_size for c in known if isinstance(getattr(c, "vocab_size", None), int)), None),
        "checkpointing": any(getattr(m, "gradient_checkpointing", False) is True for m in modules),
        "compiled": any(
            getattr(m, "_compiled_call_impl", None) is not None or type(m).__name__ == "OptimizedModule"
            for m in modules
        ),
        "hooks": sum(len(table) for table in hooks(training)),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "mkldnn": bool(torch.backends.mkldnn.enabled),
        "sdpa_replaced": torch.nn.functional.scaled_dot_product_attention
        is not torch._C._nn.scaled_dot_product_attention,
    }


def _optimizer(training: Training) -> dict[str, Any]:
    found = [one for one in updaters(training) if isinstance(one, torch.optim.Optimizer)]
    if not found:
        return {"optimizer": None, "not_updated": 0}
    one, groups = found[0], found[0].param_groups
    return {
        "optimizer": type(one).__name__,
        "optimizers": len(found),
        "has_fused": type(one) in HAVE_FUSED,
        "fused": all(group.get("fused") for group in groups),
        "foreach": groups[0].get("foreach"),
        "not_updated": 0 if isinstance(training, Ours) else sum(p.numel() for p in not_updated(training)),
    }


def _batches(training: Training) -> dict[str, Any]:
    """Shapes and padding of the first batches; of ours the config says it."""
    loader = training.batches
    found: dict[str, Any] = {"loader": type(loader).__name__}
    if isinstance(loader, DataLoader):
        found |= {"loader_workers": loader.num_workers, "loader_stays": loader.persistent_workers}
        with_length = hasattr(loader.dataset, "__len__") and loader.batch_sampler is not None
        found["batches_an_epoch"] = len(loader) if with_length else None
    if isinstance(training, Ours):
        return found
    pad = getattr(training.tokenizer, "pad_token_id", None)
    began, shapes, empty, padded, full, rows = time.perf_counter(), [], [], [], [], []
    for batch, _ in zip(loader, range(PROBED), strict=False):
        ids, mask, labels = tensors.ids(batch), tensors.mask(batch), tensors.labels(batch)
        shapes.append(None if ids is None else tuple(ids.shape))
        rows.append(0 if ids is None else len(ids))
        empty.append(empty_share(batch, pad))
        held = mask != 0 if mask is not None else labels != IGNORED if labels is not None else None
        padded.append(0.0 if held is None else 1 - held.float().mean().item())
        full.append(mask is not None and bool(mask.all()))
        if time.perf_counter() - began > LOOK_S:
            break
    count = max(len(shapes), 1)
    used = occurring(training)
    return found | {
        "fresh": training.fresh,
        "vocabulary_used": None if used is None else (len(used.ids), used.rows),
        "shapes": shapes,
        "one_shape": len(set(shapes)) == 1 and None not in shapes,
        "rows": max(rows, default=0),
        "empty_columns": sum(empty) / count,
        "padding": sum(padded) / count,
        "masks": any(mask for mask in full) or any(share for share in padded),
        "full_masks": bool(full) and all(full),
    }


@dataclass
class _Pass:
    """A forward pass: whether its gradient is wanted, whether it would be ``known`` if it came back, whether it did."""

    learns: bool
    known: bool = False
    came: bool = False
    seconds: float = 0.0

    def arrived(self) -> None:
        self.came = True


class _Watch:
    """What is on, and what is called, while some steps are taken."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = dict.fromkeys(("forwards", "extra_forwards", "checkpoints", "collections"), 0)
        self.facts["closure"] = False
        self.seconds = dict.fromkeys(("extra_forwards", "collections"), 0.0)
        self.outputs: set[str] = set()
        self.passes: list[_Pass] = []  # of this step
        self.depth = 0

    def forward(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **named: Any) -> Any:
            self._look(named)
            one = _Pass(torch.is_grad_enabled())
            self.passes.append(one)
            began = time.perf_counter()
            found = function(*inputs, **named)
            one.seconds = time.perf_counter() - began
            one.known = one.learns and tensors.on_gradient(found, one.arrived)
            if isinstance(found, dict):
                self.outputs |= {name for name, value in found.items() if value is not None}
            return found

        return call

    def stepped(self) -> None:
        """A step is over: nothing was learnt from passes without gradient, nor from those through which none came back
        where it came through others."""
        learnt = any(one.came for one in self.passes)
        for one in self.passes:
            extra = not one.learns or (learnt and one.known and not one.came)
            self.facts["extra_forwards" if extra else "forwards"] += 1
            self.seconds["extra_forwards"] += one.seconds if extra else 0.0
        self.passes.clear()

    def _look(self, named: dict[str, Any]) -> None:
        kinds = {name: torch.is_autocast_enabled(name) for name in ("cpu", "cuda")}
        on = next((name for name, enabled in kinds.items() if enabled), None)
        backends = torch.backends.cuda
        self.facts |= {
            "autocast": None if on is None else str(torch.get_autocast_dtype(on)).removeprefix("torch."),
            "anomaly": torch.is_anomaly_enabled(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "profiler": bool(torch._C._autograd._profiler_enabled()),
            "traced": bool(sys.gettrace() or sys.getprofile() or tracemalloc.is_tracing()),
            "threads": torch.get_num_threads(),
            "kernels_off": [
                name
                for name, enabled in (
                    ("flash", backends.flash_sdp_enabled()),  # type: ignore[no-untyped-call]
                    ("memory-efficient", backends.mem_efficient_sdp_enabled()),  # type: ignore[no-untyped-call]
                )
                if not enabled
            ],
            "cache_asked": bool(named.get("use_cache")),
            "reads_asked": [name for name in READS if named.get(name)],
        }

    def backward(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **named: Any) -> Any:
            for name in ("retain_graph", "create_graph"):
                self.facts[name] = self.facts.get(name, False) or bool(named.get(name))
            self.facts["anomaly"] = self.facts.get("anomaly", False) or torch.is_anomaly_enabled()
            return function(*inputs, **named)

        return call

    def stepping(self, _optimizer: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.facts["closure"] |= closures.given(args, named) is not None

    def zero_grad(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(owner: Any, set_to_none: bool = True) -> Any:
            self.facts["filled_with_zeros"] = self.facts.get("filled_with_zeros", False) or not set_to_none
            return function(owner, set_to_none=set_to_none)

        return call

    def checkpoint(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **named: Any) -> Any:
            self.facts["checkpoints"] += 1
            return function(*inputs, **named)

        return call

    def collecting(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self.began = time.perf_counter()
        elif hasattr(self, "began"):
            self.facts["collections"] += 1
            self.seconds["collections"] += time.perf_counter() - self.began

    @contextmanager
    def on(self, training: Training) -> Iterator[None]:
        self._look({})  # what is on outside of the model, should the step call its parts and never the model itself
        undo = around_entry(training, self.forward)
        before = replace_all(
            [
                ("torch:Tensor.backward", self.backward),
                ("torch.autograd:backward", self.backward),
                ("torch.optim.optimizer:Optimizer.zero_grad", self.zero_grad),
                ("torch.nn.modules.module:Module.zero_grad", self.zero_grad),
                (CHECKPOINT, self.checkpoint),
            ]
        )
        handle = register_optimizer_step_pre_hook(self.stepping)
        gc.callbacks.append(self.collecting)
        try:
            yield
        finally:
            gc.callbacks.remove(self.collecting)
            handle.remove()
            put_back(before)
            undo()


def _seen(training: Training, at: torch.device) -> dict[str, Any]:
    """A step to warm up, then some that are looked at: seconds of fetching and of the step, and what runs in each."""
    looked, total, fetching, faults, steps = _Watch(), 0.0, 0.0, 0, 0
    where = training.batches
    iterator = iter(where)
    training.step(copied(next(iterator)))
    _wait(at)
    with watched() as families, looked.on(training):
        in_data = dict.fromkeys(families, 0.0)
        while steps < LOOKED_AT and total < LOOK_S:
            before = {name: seen.seconds for name, seen in families.items()}
            began = time.perf_counter()
            batch = next(iterator, None)
            if batch is None:
                iterator = iter(where)
                batch = next(iterator)
            fetched = time.perf_counter()
            for name, seen in families.items():
                in_data[name] += seen.seconds - before[name]
            pages = _faults()
            training.step(batch)
            _wait(at)
            ended = time.perf_counter()
            looked.stepped()
            faults += _faults() - pages
            total, fetching, steps = total + ended - began, fetching + fetched - began, steps + 1
    return {
        "step_s": total / steps,
        "data_share": fetching / total,
        "families": {
            name: {
                "calls": seen.calls / steps,
                "share": seen.seconds / total,
                "data_share": in_data[name] / total,
            }
            for name, seen in families.items()
            if seen.calls
        },
        "page_faults": faults / steps,
        "trims": len(trims()),
        **looked.facts,
        "forwards": looked.facts["forwards"] / steps,
        "extra_forwards": looked.facts["extra_forwards"] / steps,
        "extra_forwards_share": looked.seconds["extra_forwards"] / total,
        "checkpoints": looked.facts["checkpoints"] / steps,
        "pauses_share": max(0.0, looked.seconds["collections"] - families["collecting"].seconds) / total,
        "outputs": sorted(looked.outputs),
    }


def _faults() -> int:
    """Pages that this process had to be given so far."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _wait(at: torch.device) -> None:
    if at.type == "cuda":
        torch.cuda.synchronize(at)
