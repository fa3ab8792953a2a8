"""What our own A/B does about a cause that no fault put in: an alarm of the doctor's that it confirms is no false one.

These were written after the faults, by someone who had read the doctor's measuring code, and use none of it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from doctor_faults.shelves import at_random
from doctor_faults.subjects import Batch, Parts, own_loss, plain_loss

Amend = Callable[[Parts], None]


def bf16(parts: Parts) -> None:
    """The loss is computed under autocast to bf16, its softmax in fp32."""
    inner = parts.loss or (plain_loss if parts.subject == "plain" else own_loss)

    def mixed(model: nn.Module, batch: Batch) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return inner(model, batch)

    parts.loss = mixed


def trimmed(parts: Parts) -> None:
    """Rows are filled up to the longest of their batch only, and those of a batch are of like lengths."""
    parts.pad_to = None
    parts.order = None if parts.order is at_random else parts.order


def fused_attention(parts: Parts) -> None:
    """transformers' models attend by torch's kernel."""
    parts.options["attn_implementation"] = "sdpa"


def fused_optimizer(parts: Parts) -> None:
    """AdamW in one kernel."""
    parts.optimizer = lambda model: torch.optim.AdamW(model.parameters(), parts.learning_rate, fused=True)


def unmasked(parts: Parts) -> None:
    """A mask that is all ones is not handed over."""
    parts.finish.append(
        lambda batch: {name: x for name, x in batch.items() if name != "attention_mask" or not bool(x.all())}
    )


def twice_the_rows(parts: Parts) -> None:
    """Twice as many rows at once."""
    parts.at_once *= 2


def memory_kept(parts: Parts) -> None:
    """glibc takes no large block from the system by itself, and gives none back."""
    malloc = ctypes.CDLL(None)
    malloc.mallopt(-4, 0)  # M_MMAP_MAX
    malloc.mallopt(-1, -1)  # M_TRIM_THRESHOLD


# By cause; "loader" has batches that lie ready, which the racer does itself.
AMENDS: Mapping[str, Amend] = {
    "fp32": bf16,
    "padding": trimmed,
    "eager_attention": fused_attention,
    "slow_optimizer": fused_optimizer,
    "attention_mask": unmasked,
    "small_micro_batch": twice_the_rows,
    "loader": lambda parts: None,
    "page_faults": memory_kept,
}
OWN_AMENDS: Mapping[str, Mapping[str, Any]] = {
    "fp32": {"train.precision": "bf16"},
    "checkpointing_for_nothing": {"train.activation_checkpointing": "none"},
}
