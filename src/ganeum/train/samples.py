"""Text that the model writes while it learns: one file a time, with its prompts and settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ganeum.config import Config
from ganeum.models.adopted import Adopted
from ganeum.models.generate import generate
from ganeum.models.gpt import GPT
from ganeum.models.kernels import any_kernel
from ganeum.models.network import Network
from ganeum.models.quiet import quiet
from ganeum.record import RunDirectory, write_atomic

if TYPE_CHECKING:
    from ganeum.data.examples.examples import Reference


def write(
    run: RunDirectory,
    step: int,
    model: Network,
    tokenizer: Any,
    config: Config,
    references: Sequence[Reference] = (),
) -> Path:
    """Writes samples/step-….txt. The same seed, step and weights give the same text (on a GPU up to rounding);
    training's own random states are not touched.

    Args:
        references: of an adopted model: held-out examples, whose sources it goes on from.
    """
    lines = [f"step: {step}"]
    if isinstance(model, Adopted):
        lines += _beside_references(model, tokenizer, config, references)
    else:
        assert isinstance(model, GPT), "there are these two"
        lines += _texts(model, tokenizer, config, config.seed + step)
    path = run.sample_path(step)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "\n".join(lines) + "\n")
    return path


def _texts(model: GPT, tokenizer: Any, config: Config, seed: int) -> list[str]:
    settings = config.sample
    end = tokenizer.end_of_text
    # An empty prompt is the end-of-text token, after which a document begins; without one, the first token there is.
    prompt = tokenizer.encode(settings.prompt) or [end if end is not None else 0]
    texts = generate(
        model,
        prompt,
        num_samples=settings.num_samples,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        generator=torch.Generator().manual_seed(seed),
        end_of_text=end,
    )
    lines = [
        f"prompt: {settings.prompt!r}",
        f"temperature: {settings.temperature}, top_k: {settings.top_k}, top_p: {settings.top_p}, "
        f"max_new_tokens: {settings.max_new_tokens}, seed: {seed}",
    ]
    for number, text in enumerate(texts, start=1):
        lines += ["", f"--- {number} ---", settings.prompt + tokenizer.decode(text)]
    return lines


def _beside_references(model: Adopted, tokenizer: Any, config: Config, references: Sequence[Reference]) -> list[str]:
    """The likeliest text for each source, beside the one that was held out: nothing is drawn, so that two steps may be
    compared."""
    settings = config.sample
    lines = [f"num_beams: {settings.num_beams}, max_new_tokens: {settings.max_new_tokens}"]
    for number, reference in enumerate(references, start=1):
        text = tokenizer.decode(_likeliest(model, reference.source_ids, settings.max_new_tokens, settings.num_beams))
        lines += [
            "",
            f"--- {number} ---",
            f"source: {reference.source}",
            f"reference: {reference.target}",
            f"generated: {text}",
        ]
    return lines


@torch.no_grad()
def _likeliest(model: Adopted, source: Sequence[int], most: int, beams: int) -> list[int]:
    """The ids that transformers' own search finds behind a source; fewer, or none, where positions end before."""
    positions = getattr(model.model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None:
        most = min(most, positions - (0 if model.encoder_decoder else len(source)))
    if most < 1:
        return []
    training = model.training
    model.eval()
    tokens = torch.tensor([source], device=next(model.parameters()).device)
    try:
        with quiet(), any_kernel():
            (found,) = model.model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=False,
                num_beams=beams,
                max_new_tokens=most,
            ).tolist()
    finally:
        model.train(training)
    return list(found[1:] if model.encoder_decoder else found[len(source) :])
