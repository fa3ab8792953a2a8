"""A GPT of ours as a writer: a run, a checkpoint, or an exported directory with its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from ganeum.data.tokenizer import load_tokenizer
from ganeum.errors import CheckpointError
from ganeum.hardware.device import Device
from ganeum.inference.decoding import Decoding
from ganeum.inference.writer import Noise, Precision, Prompts
from ganeum.models.generate import continue_each
from ganeum.models.gpt import GPT
from ganeum.models.place import Place
from ganeum.models.weights import restore
from ganeum.plan import memory
from ganeum.plan.architecture import ours
from ganeum.plan.execution import Execution, kernel
from ganeum.plan.memory import Memory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Ours:
    """See :class:`ganeum.inference.writer.Writer`. A text may be longer than the context: its last half is read again.

    Raises:
        CheckpointError: the weights cannot be read, or no tokenizer belongs to them.
    """

    def __init__(self, place: Place, identity: dict[str, Any], device: Device, precision: Precision) -> None:
        if place.tokenizer_dir is None:
            raise CheckpointError(
                "these weights have no tokenizer, so nothing can be read or written with them",
                where=str(place.weights),
                suggestion="the run, or `ganeum export --format hf` of it",
            )
        self.name, self.identity, self.cut = place.name, identity, 0
        self._tokenizer = load_tokenizer(place.tokenizer_dir)
        self._device, self._precision = device, precision
        model = restore(place.weights)
        assert isinstance(model, GPT), "a GPT of ours"
        self._model = model.to(device.torch_name)
        self._architecture = ours.architecture(self._model.config)
        self.longest = self._model.config.block_size
        self.prompts = Prompts(longest=self.longest)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """An empty text is the token that ends one, behind which a document begins; without one, the first there is."""
        end = self._tokenizer.end_of_text
        prompts = [self._tokenizer.encode(text) or [end if end is not None else 0] for text in texts]
        self.cut += sum(len(prompt) > self.longest for prompt in prompts)
        return [prompt[-self.longest :] for prompt in prompts]

    def write(self, prompts: Sequence[Sequence[int]], noise: Noise | None, decoding: Decoding) -> list[list[int]]:
        drawn = torch.zeros(len(prompts), decoding.max_new_tokens) if noise is None else torch.from_numpy(noise)
        with self._rounded():
            return continue_each(
                self._model,
                prompts,
                drawn,
                temperature=decoding.temperature,
                top_k=decoding.top_k,
                top_p=decoding.top_p,
                end_of_text=self._tokenizer.end_of_text,
            )

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(tokens)

    def needed(self, size: int, prompt: int, decoding: Decoding) -> Memory | None:
        execution = Execution(
            purpose="generation",
            micro_batch_size=size,
            length=min(prompt + decoding.max_new_tokens, self.longest),
            kind=self._device.kind,
            precision=self._precision,
            weights="fp32",
            attention=kernel(self._device, self._precision),
        )
        return memory.of(self._architecture, execution)

    def _rounded(self) -> AbstractContextManager[Any]:
        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.kind, DTYPES[self._precision])
