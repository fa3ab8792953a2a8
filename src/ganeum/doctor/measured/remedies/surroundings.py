"""Remedies for what a process and its surroundings do to any training: threads, cores, switches, stray functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ganeum import units
from ganeum.doctor.measured import fetching
from ganeum.doctor.measured.remedies.promise import FETCH, SHARE, Facts, gained
from ganeum.doctor.measured.remedy import Remedy

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


def of_host(facts: Facts) -> Iterator[Remedy]:
    """Threads, cores, switches, and functions that do not belong into a step: of any training."""
    cores, threads = facts["cores"], facts["threads"]
    on_cpu = facts["device"] == "cpu"
    if facts["all_cores"] > facts["bound_cores"] and on_cpu:
        yield Remedy(
            name=f"{facts['all_cores']} cores",
            cause="few_cores",
            change=f"the process is bound to {facts['bound_cores']} of {facts['all_cores']} cores, by taskset, numactl "
            "or os.sched_setaffinity: let it have all",
            act="all_cores",
            promise=facts["all_cores"] / facts["bound_cores"],
        )
    # More threads only where cores are free for them: on a crowded machine they wait for each other.
    idle = on_cpu and facts["load"] <= cores - threads + 1
    if threads > cores or (idle and threads < facts["physical_cores"]):
        many = threads > cores
        yield Remedy(
            name=f"{cores} thread" + ("s" if cores > 1 else ""),
            cause="oversubscription" if many else "few_cores",
            change=f"{units.things(threads, 'thread')} on {units.things(cores, 'core')}: OMP_NUM_THREADS={cores}, or "
            f"torch.set_num_threads({cores})",
            act="all_threads",
            promise=min(20.0, 2 * threads / cores) if many else (1 + cores / threads) / 2,
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
            change=f"{facts['hooks']} hooks on modules, weights or the optimizer: remove those that only watch",
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


def waiting(facts: Facts) -> tuple[str, str]:
    """Why batches are waited for: the cause's name, and words for what is most of it."""
    tokenised, asleep = (
        facts["families"].get(family, {"data_share": 0.0})["data_share"] / facts["data_share"]
        for family in ("tokenising", "sleeping")
    )
    cause, why = fetching.reason(facts.get("fetching"), asleep)
    why = f"tokenising is {tokenised:.0%} of it" if tokenised else why
    return cause, f"; {why}" if why else ""


def of_loader(facts: Facts) -> Iterator[Remedy]:
    """How much there is to gain from batches that lie ready."""
    if facts["data_share"] > FETCH:
        cause, why = waiting(facts)
        yield Remedy(
            name="batches held in memory",
            cause=cause,
            change=f"the next batch is waited for{why}: prepare the data once, keep token ids in a file or in memory",
            act="kept_batches",
            bound=True,
            group="batches",
            promise=gained(facts["data_share"]),
        )
