"""Text that the model writes while it learns: one file a time, with its prompts and settings."""

from __future__ import annotations

from pathlib import Path

import torch

from ganeum.config import Config
from ganeum.data.tokenizer import Tokenizer
from ganeum.models.generate import generate
from ganeum.models.gpt import GPT
from ganeum.record import RunDirectory, write_atomic


def write(run: RunDirectory, step: int, model: GPT, tokenizer: Tokenizer, config: Config) -> Path:
    """Writes samples/step-….txt. The same seed, step and weights give the same text (on a GPU up to rounding);
    training's own random states are not touched."""
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
        generator=torch.Generator().manual_seed(config.seed + step),
        end_of_text=end,
    )
    lines = [
        f"step: {step}",
        f"prompt: {settings.prompt!r}",
        f"temperature: {settings.temperature}, top_k: {settings.top_k}, top_p: {settings.top_p}, "
        f"max_new_tokens: {settings.max_new_tokens}, seed: {config.seed + step}",
    ]
    for number, text in enumerate(texts, start=1):
        lines += ["", f"--- {number} ---", settings.prompt + tokenizer.decode(text)]
    path = run.sample_path(step)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "\n".join(lines) + "\n")
    return path
