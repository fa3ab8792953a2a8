"""More faults that were written after the doctor was finished: of memory, and of what is learnt; see ``second``."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from doctor_faults.fault import fault
from doctor_faults.organs import loss_of
from doctor_faults.second import STREAMS, Step, logits_of
from doctor_faults.shelves import at_random
from doctor_faults.subjects import PAD, SUBJECTS, Batch, Parts, Plain


@fault("predictions gathered for the end of the epoch", "memory", ("memory_growth", "kept_logits"), STREAMS)
def pressed_flowers(parts: Parts) -> None:
    """Every step's logits are put on a list, detached."""
    kept: list[torch.Tensor] = []

    def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
        logits = logits_of(model, batch)
        kept.append(logits.detach())
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())

    parts.loss = loss


@fault("hooks registered again in every step", "memory", ("memory_growth", "slows_down", "debug_mode"), STREAMS)
def more_the_merrier(parts: Parts) -> None:
    """Each step hangs a hook on every module that keeps the first row that comes out of it, and takes none away."""

    def wrap(step: Step, model: nn.Module, optimizer: object) -> Step:
        def taken(batch: Batch) -> Any:
            seen: dict[str, torch.Tensor] = {}

            def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
                def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                    if isinstance(output, torch.Tensor):
                        seen.setdefault(name, output[0].detach().clone())

                return hook

            for name, module in model.named_modules():
                module.register_forward_hook(keep(name))
            return step(batch)

        return taken

    parts.step.append(wrap)


@fault("a second model that nothing uses", "memory", ("dead_parameters", "never_updated"), STREAMS)
def spare_wheel(parts: Parts) -> None:
    """A tower of an earlier experiment is still in the model, and in its optimizer."""
    parts.model.append(lambda model: model.add_module("draft", Plain(parts.width)))


@fault("gradients cleared before the update", "learning", ("never_updated", "learning"), SUBJECTS)
def swept_too_soon(parts: Parts) -> None:
    """backward(), zero_grad(), step(), in this order."""
    inner = loss_of(parts)

    def wrap(step: Step, model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
        def taken(batch: Batch) -> torch.Tensor:
            loss = inner(model, batch)
            loss.backward()
            optimizer.zero_grad()
            optimizer.step()
            return loss.detach()

        return taken

    parts.step.append(wrap)


@fault("a softmax before the softmax", "learning", ("learning",), STREAMS)
def diluted_ink(parts: Parts) -> None:
    """The cross-entropy, which has a softmax in it, is handed probabilities."""

    def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
        said = logits_of(model, batch)[:, :-1].softmax(-1)
        return functional.cross_entropy(said.flatten(0, 1), batch["labels"][:, 1:].flatten())

    parts.loss = loss


@fault("what to keep given as what to drop", "learning", ("learning",), ("windows", "documents", "pairs"))
def inverted_sieve(parts: Parts) -> None:
    """Dropout of 0.9, carried over from a library in which that number says what stays."""
    drop = ("dropout_rate",) if parts.subject == "pairs" else ("resid_pdrop", "embd_pdrop", "attn_pdrop")
    parts.options |= dict.fromkeys(drop, 0.9)


@fault(
    "a warm-up counted in steps and moved on by epochs", "learning", ("schedule", "never_updated", "learning"), SUBJECTS
)
def slow_dawn(parts: Parts) -> None:
    """10,000 steps of warm-up, scheduler.step() at the end of an epoch: the learning rate stays next to nothing."""

    def wrap(step: Step, model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda count: min(1.0, (count + 1) / 10000))
        steps = itertools.count(1)

        def taken(batch: Batch) -> Any:
            loss = step(batch)
            if next(steps) % (len(parts.rows) // parts.at_once) == 0:
                scheduler.step()
            return loss

        return taken

    parts.step.append(wrap)


@fault("a decoder that is handed the answer", "learning", ("causal_leak", "shifted_labels"), ("pairs",))
def open_book(parts: Parts) -> None:
    """decoder_input_ids are the labels, unshifted."""

    def hand_over(batch: Batch) -> Batch:
        return batch | {"decoder_input_ids": batch["labels"].masked_fill(batch["labels"] == -100, PAD)}

    parts.finish.append(hand_over)


@fault("an encoder under no_grad", "learning", ("never_updated", "dead_parameters", "learning"), ("pairs",))
def deaf_ear(parts: Parts) -> None:
    """The encoder's states are computed without a graph, to save memory."""

    def loss(model: Any, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            states = model.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return model(encoder_outputs=states, attention_mask=batch["attention_mask"], labels=batch["labels"]).loss

    parts.loss = loss


@fault("texts without an end", "learning", ("end_not_learnt",), ("documents",))
def unfinished_tales(parts: Parts) -> None:
    """The tokenizer adds no end-of-text token, so no text ever ends."""
    parts.rows = [{name: ids[:-1] for name, ids in row.items()} for row in parts.rows]
    parts.order = at_random
