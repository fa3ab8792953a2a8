"""Attention: written by hand, asked to be slow, or kept from its fastest kernel by a mask."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ganeum.doctor.audit.script import Seen
from ganeum.doctor.audit.settings import AMPERE, Nothing, Said, capability

PRODUCTS = ("matmul", "bmm", "einsum", "baddbmm")


def implementation(seen: Seen) -> Iterator[Said]:
    """``eager`` by name, or because somebody wants to see the weights."""
    for call in seen.script.calls:
        if call.get("attn_implementation") == "eager" or call.get("_attn_implementation") == "eager":
            advised = "gemma-2" in seen.script.text.lower() or "gemma-3" in seen.script.text.lower()
            yield seen.found(
                "eager_attention",
                "attention is asked to be eager",
                call.line,
                evidence=("transformers advised it for training Gemma 2 and 3",) if advised else (),
                severity="note" if advised else "warning",
                change='attn_implementation="sdpa"',
            )
        least = capability(seen.device)
        if call.get("attn_implementation") == "flash_attention_2" and least is not None and least < AMPERE:
            yield seen.found(
                "attention_kernel",
                "FlashAttention 2 is for Ampere and later",
                call.line,
                evidence=(f"{seen.device.name if seen.device else 'this card'} is older",),
                severity="error",
                change='attn_implementation="sdpa"',
            )
        if call.get("output_attentions") is True:
            yield seen.found(
                "eager_attention",
                "output_attentions=True makes every layer write its scores",
                call.line,
                change="output_attentions=False while training",
            )
    for one in seen.script.assignments:
        if one.target.endswith(".output_attentions") and one.known is True:
            yield seen.found(
                "eager_attention",
                "output_attentions=True makes every layer write its scores",
                one.line,
                change="output_attentions=False while training",
            )


def by_hand(seen: Seen) -> Iterator[Said]:
    """The softmax of a product of queries and keys."""
    script = seen.script
    if any(script.called("scaled_dot_product_attention")):  # by hand only where torch has none
        return
    scores = {
        target.id
        for node in ast.walk(script.tree)
        if isinstance(node, ast.Assign) and _is_score(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for call in script.called("softmax"):
        about = call.node.args[0] if call.node.args else getattr(call.node.func, "value", None)
        names = {node.id for node in ast.walk(about) if isinstance(node, ast.Name)} if about is not None else set()
        if about is not None and (_is_score(about) or names & scores):
            yield seen.found(
                "eager_attention",
                "attention written by hand: its T × T scores go through memory",
                call.line,
                change="torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)",
            )
            return


def _is_score(node: ast.AST) -> bool:
    """A product with something transposed in it."""
    text = ast.unparse(node)
    product = any(isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.MatMult) for inner in ast.walk(node))
    product = product or any(f"{name}(" in text for name in PRODUCTS)
    return product and ("transpose(" in text or ".mT" in text or ".T" in text or "einsum(" in text)


def mask(seen: Seen) -> Iterator[Said]:
    """A mask that is passed as a tensor."""
    for call in seen.script.called("scaled_dot_product_attention"):
        written = call.written.get("attn_mask", "None")
        if written != "None":
            yield seen.found(
                "attention_mask",
                "a mask as a tensor keeps attention from its flash kernel",
                call.line,
                severity="note",
                change="is_causal=True without a mask, and padding on the right",
            )


def cache(seen: Seen) -> Iterator[Said]:
    """The cache for generation, kept while training."""
    checkpointed = any(call.ends("gradient_checkpointing_enable") for call in seen.script.calls)
    for call in seen.script.calls:
        if call.get("use_cache") is True and not call.ends("generate") and checkpointed:
            yield seen.found(
                "cache_in_training",
                "use_cache=True while training",
                call.line,
                severity="note",
                change="use_cache=False",
            )
    for call in seen.script.calls:
        if not call.ends("gradient_checkpointing_enable") and not call.name.startswith("torch.utils.checkpoint."):
            continue
        yield seen.found(
            "checkpointing_for_nothing",
            "activations are computed twice",
            call.line,
            severity="note",
            change="without it, if it fits",
        )


def slowest(seen: Seen) -> Iterator[Said]:
    """Torch's attention, held to the kernel that writes its scores."""
    for call in seen.script.called("sdpa_kernel"):
        chosen = [ast.unparse(argument) for argument in call.node.args]
        if chosen and "MATH" in chosen[0] and not any(fast in chosen[0] for fast in ("FLASH", "EFFICIENT", "CUDNN")):
            yield seen.found(
                "eager_attention", "attention is held to its slowest kernel", call.line, change="without it"
            )


def defaults(seen: Seen) -> Iterator[Said]:
    """Kernels switched on that are on, or off that are needed."""
    for call in seen.script.called("enable_flash_sdp", "enable_mem_efficient_sdp", "enable_math_sdp"):
        name = call.name.rpartition(".")[2]
        if call.values[:1] == (True,):
            yield Nothing(
                f'{name}(True): it is on by default, and makes nobody use it; attn_implementation="sdpa" or '
                "scaled_dot_product_attention does"
            )
        elif call.values[:1] == (False,) and name != "enable_math_sdp":
            yield seen.found(
                "eager_attention", f"{name}(False) switches a fast kernel off", call.line, change="without it"
            )


LOOKS = (implementation, by_hand, mask, cache, slowest, defaults)
