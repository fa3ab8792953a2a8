"""How a cause is taken away from a training: functions from a training to a training, called before its first step.

Each is called in the process of its variant, which ends with it: what is switched off for a whole process, stays off.
One that cannot do its work in this training says so, by :class:`NotApplicable`.
"""

from ganeum.doctor.measured.acts.applicable import NotApplicable
from ganeum.doctor.measured.acts.attention import all_kernels, fewer_outputs, no_cache, no_mask, sdpa
from ganeum.doctor.measured.acts.data import (
    cut_padding,
    doubled,
    fetched_ahead,
    kept_batches,
    loader_workers,
    quadrupled,
    sorted_rows,
)
from ganeum.doctor.measured.acts.host import (
    all_cores,
    all_threads,
    debug_off,
    memory_kept,
    no_collecting,
    no_copying,
    no_emptying,
    no_generating,
    no_hooks,
    no_printing,
    no_saving,
    no_sleeping,
    pauses_off,
    tokenised_before,
)
from ganeum.doctor.measured.acts.numbers import bf16, compiled, fp16, fp32, single, tf32, vocabulary_padded
from ganeum.doctor.measured.acts.optimizer import foreach, fused, only_learnt, set_to_none
from ganeum.doctor.measured.acts.vocabulary import trimmed_vocabulary
from ganeum.doctor.measured.acts.work import closure_once, no_extra_forwards, not_recomputed, plain_backward

__all__ = [
    "NotApplicable",
    "all_cores",
    "all_kernels",
    "all_threads",
    "bf16",
    "closure_once",
    "compiled",
    "cut_padding",
    "debug_off",
    "doubled",
    "fetched_ahead",
    "fewer_outputs",
    "foreach",
    "fp16",
    "fp32",
    "fused",
    "kept_batches",
    "loader_workers",
    "memory_kept",
    "no_cache",
    "no_collecting",
    "no_copying",
    "no_emptying",
    "no_extra_forwards",
    "no_generating",
    "no_hooks",
    "no_mask",
    "no_printing",
    "no_saving",
    "no_sleeping",
    "not_recomputed",
    "only_learnt",
    "pauses_off",
    "plain_backward",
    "quadrupled",
    "sdpa",
    "set_to_none",
    "single",
    "sorted_rows",
    "tf32",
    "tokenised_before",
    "trimmed_vocabulary",
    "vocabulary_padded",
]
