"""Which remedies a training gets, by what is known of it: what cannot help is not tried, what promises most comes first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ganeum import units
from ganeum.config import Config
from ganeum.config.batch import divisors
from ganeum.doctor.finding import Finding
from ganeum.doctor.measured.remedy import Remedy

Facts = Mapping[str, Any]
SHARE = 0.005  # of a step: what takes less is not tried
PAGE_S = 0.5e-6  # seconds to fault in a page of 4 KiB, zeros included
FETCH = 0.02  # of the time: what fetching batches takes before it is looked at
MOST = 1e3  # a promise is no larger

# Family of functions → name, cause, what to change, whether it only shows a bound.
FAMILIES: Mapping[str, tuple[str, str, str, str, bool]] = {
    "collecting": ("no_collecting", "no gc.collect()", "pauses", "no gc.collect() in the step", False),
    "emptying": ("no_emptying", "no empty_cache()", "memory_emptied", "no torch.cuda.empty_cache() in the step", False),
    "printing": ("no_printing", "no printing", "sync", "print and log every hundredth step, not every one", False),
    "saving": ("no_saving", "no saving", "too_often", "save less often, outside the step that is timed", True),
    "copying": ("no_copying", "no copies of weights", "model_copied", "copy the model, or its state, less often", True),
    "sleeping": ("no_sleeping", "no sleeping", "pauses", "time.sleep() does not belong into a step", False),
    "generating": ("no_generating", "no generating", "too_often", "generate texts less often", True),
    "tokenising": (
        "tokenised_before",
        "tokenised before",
        "loader",
        "tokenise once, before training, and keep the ids",
        True,
    ),
}
# Variables that slow everything down, with what they do.
SLOW: Mapping[str, tuple[str, str]] = {
    "CUDA_LAUNCH_BLOCKING": ("1", "every kernel is waited for"),
    "PYTORCH_NO_CUDA_MEMORY_CACHING": ("1", "CUDA's memory is asked for anew each time"),
    "NVIDIA_TF32_OVERRIDE": ("0", "TF32 is forbidden"),
    "TORCHDYNAMO_DISABLE": ("1", "nothing is compiled"),
    "ATEN_CPU_CAPABILITY": ("", "torch's CPU kernels without the widest vectors"),
    "ONEDNN_MAX_CPU_ISA": ("", "oneDNN without the widest vectors"),
    "DNNL_MAX_CPU_ISA": ("", "oneDNN without the widest vectors"),
    "MKL_ENABLE_INSTRUCTIONS": ("", "MKL without the widest vectors"),
    "PYTHONDEVMODE": ("1", "Python checks itself"),
    "PYTHONTRACEMALLOC": ("", "Python notes where each object comes from"),
    "PYTHONMALLOC": ("", "Python's allocator checks itself"),
    "MALLOC_CHECK_": ("", "the C library checks its memory"),
}


def of_training(facts: Facts) -> list[Remedy]:
    """For somebody's own training, the most promising first."""
    found = [*_host(facts), *_data(facts), *_numbers(facts), *_work(facts), *_optimizer(facts)]
    return _first(found)


def of_config(config: Config, facts: Facts) -> list[Remedy]:
    """For a run of ours: keys to change, and what its process and its surroundings do to it.

    Args:
        config: with every key resolved (``facts["decided"]``).
    """
    found = [*_host(facts), *_ours_data(facts), *_keys(config, facts)]
    return _first(found)


def _first(found: list[Remedy]) -> list[Remedy]:
    """The most promising first; what changes the learning, or shows only a bound, after what can be applied."""
    return sorted(found, key=lambda one: (-round(one.promise, 2), one.bound or not one.same_learning))


def gained(share: float) -> float:
    """How many times as fast a step is without a share of its time."""
    return min(MOST, 1 / max(1 - share, 1 / MOST))


def pays_from(start_s: float, before_s: float, after_s: float) -> int | None:
    """Steps from which on what is saved has paid for a longer start; None: it never does.

    >>> pays_from(30.0, 0.4, 0.3)
    300
    """
    saved = before_s - after_s
    return None if saved <= 0 else max(1, round(start_s / saved))


def _host(facts: Facts) -> Iterator[Remedy]:
    """Threads, cores, switches, and functions that do not belong into a step: of any training."""
    cores, threads = facts["cores"], facts["threads"]
    on_cpu = facts["device"] == "cpu"
    if facts["all_cores"] > facts["bound_cores"] and on_cpu:
        yield Remedy(
            name=f"{facts['all_cores']} cores",
            cause="few_cores",
            change=f"the process is bound to {facts['bound_cores']} of {facts['all_cores']} cores: taskset, numactl, a job's "
            "settings or os.sched_setaffinity",
            act="all_cores",
            promise=facts["all_cores"] / facts["bound_cores"],
        )
    if threads > cores or (on_cpu and threads < facts["physical_cores"]):
        many = threads > cores
        yield Remedy(
            name=f"{cores} thread" + ("s" if cores > 1 else ""),
            cause="oversubscription" if many else "few_cores",
            change=f"{threads} threads compute on {cores} cores: OMP_NUM_THREADS={cores}, or torch.set_num_threads({cores})",
            act="all_threads",
            promise=min(20.0, threads / cores * (2 if many else 1)) if many else 1.0 + 0.5 * (cores / threads - 1),
        )
    slow = {name: facts["environment"][name] for name in SLOW if name in facts["environment"]}
    slow = {name: value for name, value in slow.items() if SLOW[name][0] in ("", value)}
    for name, value in slow.items():
        yield Remedy(
            name=f"without {name}",
            cause="slow_switch",
            change=f"{name}={value} in the environment: {SLOW[name][1]}",
            environment={name: None},
            promise=1.5,
        )
    if on := _debugging(facts):
        yield Remedy(
            name="debugging off",
            cause="debug_mode",
            change=f"{' and '.join(on)} off: for looking for mistakes, not for training",
            act="debug_off",
            promise=1.8,
        )
    for family, seen in facts["families"].items():
        act, name, cause, change, bound = FAMILIES[family]
        share = seen["share"] - (0.0 if family == "tokenising" else seen["data_share"])
        if share > SHARE and not (facts["ours"] and family == "tokenising"):
            yield Remedy(name=name, cause=cause, change=change, act=act, bound=bound, promise=gained(share))
    if facts["pauses_share"] > SHARE:
        yield Remedy(
            name="no pauses of Python",
            cause="pauses",
            change="gc.freeze() and gc.disable() before training, gc.collect() every thousandth step",
            act="pauses_off",
            promise=gained(facts["pauses_share"]),
        )
    if facts["hooks"]:
        yield Remedy(
            name="no hooks",
            cause="debug_mode",
            change=f"{facts['hooks']} hooks on modules or weights: remove those that only watch",
            act="no_hooks",
            promise=1.0 + min(0.5, 0.01 * facts["hooks"]),
        )
    if facts["kernels_off"] or facts["sdpa_replaced"] or (on_cpu and not facts["mkldnn"]):
        off = [f"{name} attention" for name in facts["kernels_off"]]
        off += ["torch's scaled_dot_product_attention"] if facts["sdpa_replaced"] else []
        off += [] if facts["mkldnn"] or not on_cpu else ["oneDNN"]
        yield Remedy(
            name="all fast kernels",
            cause="eager_attention" if facts["mkldnn"] else "slow_switch",
            change=f"{' and '.join(off)} switched off: let torch choose (no sdpa_kernel, no enable_…_sdp(False))",
            act="all_kernels",
            promise=1.4,
        )


def _debugging(facts: Facts) -> list[str]:
    deterministic = facts["deterministic"] and not facts["ours"]
    names = {
        "anomaly detection": facts["anomaly"],
        "deterministic algorithms": deterministic,
        "a profiler": facts["profiler"],
        "a tracer of Python's": facts["traced"],
    }
    return [name for name, on in names.items() if on]


def _bound_of_loader(facts: Facts) -> Iterator[Remedy]:
    """How much there is to gain from batches that lie ready."""
    if facts["data_share"] > FETCH:
        tokenised = facts["families"].get("tokenising", {"data_share": 0.0})["data_share"]
        why = f"; tokenising is {tokenised / facts['data_share']:.0%} of it" if tokenised else ""
        yield Remedy(
            name="batches held in memory",
            cause="loader",
            change=f"the next batch is waited for{why}: prepare the data once, keep token ids in a file or in memory",
            act="kept_batches",
            bound=True,
            group="batches",
            promise=gained(facts["data_share"]),
        )


def _data(facts: Facts) -> Iterator[Remedy]:
    """Batches of somebody's training: fetched, padded, too small."""
    yield from _bound_of_loader(facts)
    workers = facts.get("loader_workers")
    if facts["data_share"] > FETCH and (workers is None or workers == 0):
        yield Remedy(
            name="batches fetched ahead",
            cause="loader",
            change="fetch the next batch while a step computes: num_workers and persistent_workers of the DataLoader, "
            "or a thread with a queue",
            act="fetched_ahead",
            group="fetching",
            promise=gained(min(facts["data_share"], 0.5)) - 0.01,
        )
    if workers is not None and (
        workers > facts["cores"] or (facts["data_share"] > FETCH and (workers == 0 or not facts["loader_stays"]))
    ):
        many = workers > facts["cores"]
        yield Remedy(
            name="fewer workers" if many else "workers that stay",
            cause="oversubscription" if many else "worker_start" if workers else "loader",
            change=f"num_workers={max(1, min(4, facts['cores'] - 1))}, persistent_workers=True ({workers} workers now)",
            act="loader_workers",
            group="fetching",
            promise=gained(min(facts["data_share"], 0.5)) - 0.02,
        )
    if facts["empty_columns"] > SHARE:
        yield Remedy(
            name="empty columns cut off",
            cause="padding",
            change='pad to the longest row of a batch (padding="longest" in the collator), not to max_length',
            act="cut_padding",
            promise=gained(facts["empty_columns"]),
        )
    if facts["padding"] - facts["empty_columns"] > 0.05 and facts["rows"] > 1:
        yield Remedy(
            name="rows of like length",
            cause="padding",
            change="group_by_length=True, or buckets, or packing: it changes which rows learn together",
            act="sorted_rows",
            same_learning=False,
            promise=gained(facts["padding"]),
        )
    if facts["masks"] and facts["full_masks"]:
        yield Remedy(
            name="no mask",
            cause="attention_mask",
            change="leave out a mask that masks nothing: attention then takes its fastest kernel",
            act="no_mask",
            promise=1.02,
        )
    if facts["one_shape"]:
        for act, times, promise in (("doubled", 2, 1.3), ("quadrupled", 4, 1.29)):
            yield Remedy(
                name=f"{times} batches in one",
                cause="small_micro_batch",
                change=f"{times} times the rows at once ({facts['rows']} now), and as much less accumulation; without any, "
                "the batch that is learnt with grows",
                act=act,
                group="micro-batch",
                same_learning=False,
                promise=promise if facts["rows"] < 8 else 1.05,
            )


def _numbers(facts: Facts) -> Iterator[Remedy]:
    """What is computed with, and compiling."""
    gpu, plain = facts["device"] == "cuda", facts["dtypes"] == ["float32"] and facts["autocast"] is None
    if "float64" in facts["dtypes"]:
        yield Remedy(
            name="fp32 weights",
            cause="double_precision",
            change="weights in fp64: model.float(), and torch.set_default_dtype left as it is",
            act="single",
            promise=30.0 if gpu else 2.0,
        )
    if plain and facts["bf16"]:
        yield Remedy(
            name="bf16",
            cause="fp32",
            change="torch.autocast(…, torch.bfloat16) around the forward pass (Trainer: bf16=True)",
            act="bf16",
            group="precision",
            promise=1.6 if gpu else 1.25,
        )
    if gpu and plain and not facts["bf16"] and (facts["capability"] or (0, 0)) >= (7, 0):
        yield Remedy(
            name="fp16",
            cause="fp32",
            change="torch.autocast(…, torch.float16) with a GradScaler (Trainer: fp16=True)",
            act="fp16",
            group="precision",
            bound=True,
            promise=1.6,
        )
    if gpu and plain and (facts["capability"] or (0, 0)) >= (8, 0) and facts["matmul_precision"] == "highest":
        yield Remedy(
            name="TF32",
            cause="tf32_off",
            change='torch.set_float32_matmul_precision("high")',
            act="tf32",
            group="precision",
            promise=1.5,
        )
    if facts["autocast"] in ("bfloat16", "float16") and (not gpu or not facts["bf16"]):
        native = facts["bf16"] and facts["autocast"] == "bfloat16"
        if not native and not (gpu and facts["autocast"] == "float16"):
            yield Remedy(
                name="fp32",
                cause="bf16_emulated",
                change=f"{facts['device_name']} has no hardware for {facts['autocast']} and emulates it: fp32"
                + (", or fp16 with a GradScaler" if gpu else ""),
                act="fp32",
                group="precision",
                promise=1.5,
            )
    if "eager" in facts["attention"]:
        yield Remedy(
            name="fused attention",
            cause="eager_attention",
            change='attn_implementation="sdpa"; output_attentions=False',
            act="sdpa",
            promise=1.2 if gpu else 1.1,
        )
    if gpu and (facts["vocabulary"] or 0) % 64:
        yield Remedy(
            name="vocabulary × 64",
            cause="odd_vocabulary",
            change="resize_token_embeddings(pad_to_multiple_of=64)",
            act="vocabulary_padded",
            same_learning=False,
            promise=1.1,
        )
    if not facts["compiled"] and facts["cannot_compile"] is None:
        yield Remedy(
            name="compiled",
            cause="not_compiled",
            change="torch.compile(model)"
            + ("" if facts.get("one_shape") else ", dynamic=True or padding to a few lengths"),
            act="compiled",
            group="compiling",
            promise=1.3 if gpu else 1.001,  # on a CPU it starts slowly and seldom gains: last
        )


def _work(facts: Facts) -> Iterator[Remedy]:
    """What is computed twice, or for nothing."""
    if facts["checkpointing"] or facts["checkpoints"]:
        yield Remedy(
            name="nothing recomputed",
            cause="checkpointing_for_nothing",
            change="gradient checkpointing off, if the memory is there",
            act="not_recomputed",
            promise=1.3,
        )
    if facts["extra_forwards"] and facts["extra_forwards_share"] > SHARE:
        yield Remedy(
            name="no passes without gradient",
            cause="extra_forwards",
            change="evaluate less often, or on fewer rows; take metrics from the pass that is learnt from",
            act="no_extra_forwards",
            bound=True,
            promise=gained(facts["extra_forwards_share"]),
        )
    if facts.get("retain_graph") or facts.get("create_graph"):
        yield Remedy(
            name="plain backward",
            cause="kept_graph",
            change="loss.backward() without retain_graph and create_graph",
            act="plain_backward",
            promise=1.2 if facts.get("create_graph") else 1.02,
        )
    if facts["reads"] or facts["reads_asked"] or {"attentions", "hidden_states"} & set(facts["outputs"]):
        yield Remedy(
            name="fewer outputs",
            cause="eager_attention",
            change="output_attentions=False, output_hidden_states=False",
            act="fewer_outputs",
            promise=1.1,
        )
    if "past_key_values" in facts["outputs"]:
        yield Remedy(
            name="no cache",
            cause="cache_in_training",
            change="model.config.use_cache = False while training",
            act="no_cache",
            promise=1.02,
        )
    pages = facts["page_faults"] * PAGE_S / facts["step_s"]
    if facts["device"] == "cpu" and not facts["ours"] and pages > SHARE:
        yield Remedy(
            name="freed memory kept",
            cause="page_faults",
            change="MALLOC_TRIM_THRESHOLD_=-1 MALLOC_MMAP_MAX_=0 in the environment (glibc), or tcmalloc or jemalloc preloaded",
            act="memory_kept",
            promise=gained(min(pages, 0.5)),
        )


def _optimizer(facts: Facts) -> Iterator[Remedy]:
    if facts["optimizer"] is not None and not facts.get("fused") and facts["optimizers"] == 1:
        yield Remedy(
            name="fused optimizer",
            cause="slow_optimizer",
            change=f"{facts['optimizer']}(…, fused=True)"
            if facts["has_fused"]
            else "torch.optim.AdamW(…, fused=True) with the same hyper-parameters",
            act="fused",
            group="optimizer",
            promise=1.12,
        )
    if facts["has_fused"] if facts["optimizer"] else False:
        if facts["device"] == "cuda" and facts["foreach"] is False and not facts["fused"]:
            yield Remedy(
                name="optimizer over lists",
                cause="slow_optimizer",
                change="foreach=None, its default",
                act="foreach",
                group="optimizer",
                promise=1.08,
            )
    if facts.get("filled_with_zeros"):
        yield Remedy(
            name="gradients let go",
            cause="zero_grad",
            change="zero_grad(set_to_none=True), its default",
            act="set_to_none",
            promise=1.03,
        )
    if facts["not_updated"]:
        yield Remedy(
            name="no idle gradients",
            cause="extra_forwards",
            change=f"requires_grad_(False) for {units.count(facts['not_updated'])} weights that no optimizer holds",
            act="only_learnt",
            promise=1.0 + 0.3 * facts["not_updated"] / facts["parameters"],
        )


def _ours_data(facts: Facts) -> Iterator[Remedy]:
    yield from _bound_of_loader(facts)
    if facts["checkpoints"] and facts["decided"]["train"]["activation_checkpointing"] == "none":
        yield from (one for one in _work({**facts, "outputs": [], "page_faults": 0}) if one.act == "not_recomputed")


def _keys(config: Config, facts: Facts) -> Iterator[Remedy]:
    """Keys of a config whose change may help; each leaves the rest as it is."""
    train, data, gpu = config.train, config.data, facts["device"] == "cuda"
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
    if config.model.source is not None and data.batching in ("fixed", "padded"):
        yield _key("buckets", "padding", {"data.batching": "buckets"}, group="batching", promise=1.5)
        yield _key("packed", "padding", {"data.batching": "packed"}, group="batching", promise=1.49)
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
        yield _key("without DeepSpeed", "data_parallel", {"train.zero.stage": 0}, promise=1.2)
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


def _micro_batches(config: Config, facts: Facts) -> Iterator[Remedy]:
    """More sequences at once, and on a CPU, whose cache is small, also fewer."""
    size, whole = config.train.micro_batch_size, config.train.batch_size
    assert size != "auto", "resolved before"
    sizes = [n for n in divisors(whole) if n > size]
    by_tokens = config.train.batch_tokens is not None
    tried = [n for n in (2 * size, 4 * size, sizes[-1] if sizes else 0) if (n in sizes or by_tokens) and n]
    if facts["device"] == "cpu":
        tried += [n for n in divisors(whole) if n < size][-1:]
    for n in dict.fromkeys(tried):
        yield _key(
            f"{n} at once",
            "small_micro_batch",
            {"train.micro_batch_size": n},
            group="micro-batch",
            promise=(1.4 if n == 2 * size else 1.35) if n > size and size < 8 else 1.1 if n > size else 1.01,
        )


def _key(name: str, cause: str, keys: Mapping[str, Any], **more: Any) -> Remedy:
    change = ", ".join(
        f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in keys.items()
    )
    return Remedy(name=name, cause=cause, change=change, keys=keys, **more)


def told(facts: Facts, config: Config | None = None) -> list[Finding]:
    """What can be said without trying anything, exactly."""
    found = []
    if config is not None and config.model.source is None and config.data.order == "epochs":
        length, stride = config.model.block_size, config.data.stride
        if isinstance(stride, int) and stride < length:
            found.append(
                Finding(
                    cause="overlapping_windows",
                    title=f"windows of {length:,} tokens start {stride:,} apart: an epoch has a token {length / stride:.3g} times",
                    evidence=(
                        "tokens per second stay the same without overlap; an epoch becomes as many times shorter",
                    ),
                    change="data.stride=auto, and as many epochs as the held-out loss wants",
                    sure="computed",
                    size=length / stride,
                    unit="times the steps of an epoch",
                    where="data.stride",
                )
            )
    return found
