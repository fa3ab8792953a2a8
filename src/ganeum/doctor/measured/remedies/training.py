"""Remedies for somebody's own training: its batches, its numbers, its work, its optimizer."""

from __future__ import annotations

from collections.abc import Iterator

from ganeum import units
from ganeum.doctor.measured.remedies.promise import FETCH, PAGE_S, SHARE, Facts, gained
from ganeum.doctor.measured.remedies.surroundings import of_loader, waiting
from ganeum.doctor.measured.remedy import Remedy


def of_data(facts: Facts) -> Iterator[Remedy]:
    """Batches of somebody's training: fetched, padded, too small."""
    yield from of_loader(facts)
    workers = facts.get("loader_workers")
    if facts["data_share"] > FETCH and (workers is None or workers == 0):
        yield Remedy(
            name="batches fetched ahead",
            cause=waiting(facts)[0],
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
            same_rows=True,
            promise=(1 - facts["empty_columns"]) / max(1 - facts["padding"], 0.1),
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
                change=f"{times} times the rows at once ({facts['rows']} now), and as much less accumulation; "
                "without any, the batch that is learnt with grows",
                act=act,
                group="micro-batch",
                same_learning=False,
                promise=promise if facts["rows"] < 8 else 1.05,
            )


def of_numbers(facts: Facts) -> Iterator[Remedy]:
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
    halves = sorted({"float16", "bfloat16"} & set(facts["dtypes"]))
    if halves and not gpu:
        yield Remedy(
            name="fp32 weights",
            cause="pure_half",
            change=f"weights in {' and '.join(halves)}: model.float(), which also learns more exactly; autocast "
            "where the CPU has units for bf16",
            act="single",
            group="precision",
            promise=1.5,
        )
    if plain and facts["bf16"]:
        yield Remedy(
            name="bf16",
            cause="fp32",
            change="torch.autocast(…, torch.bfloat16) around the forward pass (Trainer: bf16=True)",
            act="bf16",
            group="precision",
            promise=1.6 if gpu else 1.16,  # on a CPU what was seen in its own steps comes first
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
            promise=1.2,  # what was seen of it comes before what any training may gain
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
    if (used := facts.get("vocabulary_used")) is not None:
        ids, rows = used
        change = (
            f"{ids:,} of {rows:,} ids occur: a tokenizer made for this text, or its ids numbered anew; embedding and "
            "output layer then have so many rows"
            if facts["fresh"]
            else f"{ids:,} of {rows:,} ids occur: embedding and output layer can be cut down to them if it will never "
            "read or write others"
        )
        yield Remedy(
            name="rows of ids that occur",
            cause="large_vocabulary",
            change=change,
            act="trimmed_vocabulary",
            bound=True,
            same_learning=facts["fresh"],
            promise=gained(0.5 * (1 - ids / rows)),
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


def of_work(facts: Facts) -> Iterator[Remedy]:
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
    if (share := facts.get("closure_again_share", 0.0)) > SHARE:
        yield Remedy(
            name="gradients computed once",
            cause="extra_forwards",
            change="optimizer.step() without its closure, which computes again what backward() has just computed; or "
            "the closure alone",
            act="closure_once",
            promise=gained(share),
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
            change=("no malloc_trim() in the step; " if facts.get("trims") else "")
            + "MALLOC_TRIM_THRESHOLD_=-1 MALLOC_MMAP_MAX_=0 in the environment (glibc), or jemalloc preloaded",
            act="memory_kept",
            promise=gained(min(pages, 0.5)),
        )


def of_optimizer(facts: Facts) -> Iterator[Remedy]:
    if facts["optimizer"] is not None and not facts.get("fused") and facts["optimizers"] == 1:
        yield Remedy(
            name="fused optimizer",
            cause="slow_optimizer",
            change=f"{facts['optimizer']}(…, fused=True)"
            if facts["has_fused"]
            else "torch.optim.AdamW(…, fused=True) with the same hyper-parameters",
            act="fused",
            group="optimizer",
            promise=1.17,
        )
    if facts.get("has_fused") and facts["device"] == "cuda" and facts["foreach"] is False and not facts["fused"]:
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
