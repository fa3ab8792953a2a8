"""Causal attention of transformers' models without the masks that they would make, and wait for, in each step.

Given no mask, a decoder of transformers looks on the device whether its positions are those of packed rows, and waits
for the answer. What it attends with under a name that it has no masks for, it takes for something that needs none: and
torch's fused attention needs none, told that it is causal. A mask that is given is used as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

NAME = "ganeum_causal"


@contextmanager
def without_masks(configs: Sequence[Any]) -> Iterator[None]:
    """The models of these configs, which attend with "sdpa", do so without making masks."""
    if configs:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        ALL_ATTENTION_FUNCTIONS.register(NAME, sdpa_attention_forward)
    for config in configs:
        config._attn_implementation_internal = NAME
    try:
        yield
    finally:
        for config in configs:
            config._attn_implementation_internal = "sdpa"
