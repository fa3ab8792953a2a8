"""Faults of the model and its optimizer: how it computes, how it was drawn, what of it is updated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from doctor_faults.fault import fault
from doctor_faults.subjects import SUBJECTS, Batch, Parts, own_loss, plain_loss

HUGGING = ("windows", "documents")


def loss_of(parts: Parts) -> Callable[[nn.Module, Batch], torch.Tensor]:
    """How the subject's loss is computed so far."""
    return parts.loss or (plain_loss if parts.subject == "plain" else own_loss)


def longer(parts: Parts) -> None:
    """Rows of 256 tokens, two at once: attention is worth something."""
    if parts.subject in ("plain", "windows"):
        stream = [token for row in parts.rows for token in row["input_ids"]]
        cut = [stream[start : start + 256] for start in range(0, len(stream) - 255, 256)]
        parts.rows, parts.at_once = [{"input_ids": row, "labels": row} for row in cut], 2


@fault("eager attention", "speed", ("eager_attention",), ("windows",), ground=longer)
def longhand(parts: Parts) -> None:
    """attn_implementation="eager" over 256 tokens."""
    parts.options["attn_implementation"] = "eager"


@fault("math attention forced", "speed", ("eager_attention", "attention_mask"), ("plain", "windows"), ground=longer)
def schoolbook(parts: Parts) -> None:
    """scaled_dot_product_attention may use its plainest kernel only, over 256 tokens."""
    inner = loss_of(parts)

    def slow(model: nn.Module, batch: Batch) -> torch.Tensor:
        with sdpa_kernel([SDPBackend.MATH]):
            return inner(model, batch)

    parts.loss = slow


@fault("recomputation", "speed", ("checkpointing_for_nothing",), SUBJECTS)
def twice_told_tale(parts: Parts) -> None:
    """Every block is computed again in the backward pass."""

    def change(model: nn.Module) -> None:
        if hasattr(model, "gradient_checkpointing_enable"):
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            return
        for block in model.blocks:  # type: ignore[union-attr]
            inner = block.forward
            block.forward = lambda x, inner=inner: checkpoint(inner, x, use_reentrant=False)

    parts.model.append(change)


def few_rows(parts: Parts) -> None:
    """Two rows at once: the optimizer is worth something."""
    parts.at_once = 2


@fault("for-loop optimizer", "speed", ("slow_optimizer",), SUBJECTS, ground=few_rows)
def one_stitch_each(parts: Parts) -> None:
    """AdamW goes over the weights one tensor at a time; two rows at once, so that it counts."""
    parts.optimizer = lambda model: torch.optim.AdamW(
        model.parameters(), parts.learning_rate, foreach=False, fused=False
    )


@fault("twice the digits", "speed", ("double_precision", "fp32"), ("plain",))
def gold_plating(parts: Parts) -> None:
    """Everything in float64."""
    parts.model.append(lambda model: model.double())


@fault(
    "a vocabulary far larger than the text's",
    "speed",
    ("large_vocabulary", "odd_vocabulary", "logits"),
    ("plain", "windows"),
)
def borrowed_dictionary(parts: Parts) -> None:
    """4,096 tokens of which 512 occur: the head is most of the work."""
    from doctor_faults import subjects

    def widen(model: nn.Module) -> nn.Module | None:
        if parts.subject == "plain":
            return subjects.Plain(parts.width, vocabulary=4096)
        model.resize_token_embeddings(4096)  # type: ignore[operator]
        return None

    parts.model.append(widen)


@fault("the cache for generation kept while training", "speed", ("cache_in_training",), HUGGING)
def packed_lunch(parts: Parts) -> None:
    """use_cache=True."""
    parts.options["use_cache"] = True


@fault("bad initialisation", "learning", ("first_loss",), ("plain", "windows", "documents"))
def heavy_handed(parts: Parts) -> None:
    """Embeddings and head are drawn thirty times as wide as they should be."""

    def stretch(model: nn.Module) -> None:
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.Embedding) and module.num_embeddings > 500:
                    module.weight.normal_(std=0.6)
                if isinstance(module, nn.Linear) and module.out_features > 500:
                    module.weight.normal_(std=0.6)

    parts.model.append(stretch)


@fault("unnormalised accumulation", "learning", ("accumulation",), SUBJECTS)
def heavy_thumb(parts: Parts) -> None:
    """Four micro-batches add up where they should be averaged."""
    parts.pieces = 4
    parts.piece_loss = lambda loss, pieces: loss


@fault("gradients never cleared", "learning", ("gradients_kept",), SUBJECTS)
def running_tab(parts: Parts) -> None:
    """Every step's gradients are added to all those before."""
    parts.clear = lambda optimizer: None


@fault("weights frozen by accident", "learning", ("never_updated", "learning"), SUBJECTS)
def frostbite(parts: Parts) -> None:
    """Half of the blocks learn nothing."""

    def freeze(model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if ".0." in name and parameter.dim() == 2:
                parameter.requires_grad_(False)

    parts.model.append(freeze)


@fault("an optimizer that holds other weights", "learning", ("never_updated", "learning"), ("plain", "windows"))
def wrong_address(parts: Parts) -> None:
    """The optimizer was made for a copy of the model."""
    import copy

    parts.optimizer = lambda model: torch.optim.AdamW(
        copy.deepcopy(model).parameters(), parts.learning_rate, fused=True
    )


@fault("a learning rate of nothing", "learning", ("never_updated", "learning", "schedule"), SUBJECTS)
def idle_hands(parts: Parts) -> None:
    """The learning rate is 0."""
    parts.learning_rate = 0.0


@fault("attention that looks ahead", "learning", ("causal_leak", "shifted_labels"), ("plain",))
def crystal_ball(parts: Parts) -> None:
    """Every token sees those after it."""

    def open_up(model: nn.Module) -> None:
        for block in model.blocks:  # type: ignore[union-attr]
            block.causal = False

    parts.model.append(open_up)


@fault("labels shifted twice", "learning", ("shifted_labels",), ("windows", "documents"))
def two_left_feet(parts: Parts) -> None:
    """The labels are shifted before the model shifts them again."""

    def shift(batch: Batch) -> Batch:
        labels = batch["labels"]
        return batch | {"labels": torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], -100)], dim=1)}

    parts.finish.append(shift)


@fault("labels not shifted", "learning", ("shifted_labels",), ("plain",))
def echo_chamber(parts: Parts) -> None:
    """Each place learns the token that stands there."""

    def same(model: nn.Module, batch: Batch) -> torch.Tensor:
        return functional.cross_entropy(model(batch["input_ids"]).flatten(0, 1), batch["labels"].flatten())

    parts.loss = same


@fault("gradients that are no numbers", "learning", ("loss_nan", "gradient_norm"), SUBJECTS)
def poisoned_well(parts: Parts) -> None:
    """A division by nothing in one place of the loss."""
    inner = loss_of(parts)

    def spoil(model: nn.Module, batch: Batch) -> torch.Tensor:
        loss = inner(model, batch)
        weight: Any = next(model.parameters())
        return loss + (weight.sum() * 0.0).sqrt()

    parts.loss = spoil
