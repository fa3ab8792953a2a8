"""One of Hugging Face's models as a writer, through transformers' own ``generate``: any that reads and writes text."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from ganeum.data.examples.tokenizer import ExampleTokenizer, cut
from ganeum.errors import ConfigError
from ganeum.hardware.device import Device
from ganeum.inference.decoding import Decoding
from ganeum.inference.writer import Noise, Precision, Prompts
from ganeum.models.generate import choose
from ganeum.plan import memory
from ganeum.plan.architecture import Architecture
from ganeum.plan.execution import Execution, kernel
from ganeum.plan.memory import Memory

ENDLESS = 10**6  # what tokenizers call their longest text where they know of none
UNKNOWN = 2048  # tokens of a prompt where neither the model nor its tokenizer says how many there may be


class Theirs:
    """See :class:`ganeum.inference.writer.Writer`.

    Prompts of an encoder are padded at the right, those of a causal model at the left, where what is written follows
    them at once; positions are counted without the padding. What the model's generation_config.json says of texts
    (length_penalty, no_repeat_ngram_size, forced tokens) holds; how tokens are chosen, :class:`Decoding` says.

    Args:
        model: a PreTrainedModel that has `generate`.
        prompts: an encoder's text is cut as in training, a causal model's keeps its end.
        architecture: for the plan; None where its parts are not known.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: ExampleTokenizer,
        *,
        name: str,
        identity: dict[str, Any],
        prompts: Prompts,
        device: Device,
        precision: Precision,
        decoding: Decoding,
        architecture: Architecture | None = None,
    ) -> None:
        self.name, self.identity, self.cut = name, identity, 0
        self._pairs = bool(model.config.is_encoder_decoder)
        self._tokenizer, self._architecture = tokenizer, architecture
        self._device, self._precision = device, precision
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self._model = model.to(device=device.torch_name, dtype=dtype).eval()
        self._ends = self._end_tokens()
        self.longest = self._room(prompts.longest, decoding.max_new_tokens)
        self.prompts = replace(prompts, longest=self.longest)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """With what the tokenizer sets around a source; but for an encoder, nothing that ends a text stands behind."""
        own, side = self._tokenizer, self._tokenizer.side if self._pairs else "left"
        before = list(own.source.before)
        after = list(own.source.after) if self._pairs else []
        prompts = []
        for text in texts:
            ids = own.encode(self.prompts.prefix + text)
            room = self.longest - len(before) - len(after)
            self.cut += len(ids) > room
            prompts.append(before + cut(ids, room, side) + after or [self._first()])
        return prompts

    @torch.no_grad()
    def write(self, prompts: Sequence[Sequence[int]], noise: Noise | None, decoding: Decoding) -> list[list[int]]:
        widest = max(map(len, prompts))
        tokens = torch.full((len(prompts), widest), self._tokenizer.pad)  # (B, S)
        mask = torch.zeros_like(tokens)
        for i, prompt in enumerate(prompts):
            place = slice(0, len(prompt)) if self._pairs else slice(widest - len(prompt), widest)
            tokens[i, place], mask[i, place] = torch.tensor(prompt), 1
        settings = copy.deepcopy(self._model.generation_config)
        settings.update(
            do_sample=False,
            num_beams=decoding.num_beams,
            max_new_tokens=decoding.max_new_tokens,
            max_length=None,
            temperature=None,
            top_k=None,
            top_p=None,
            num_return_sequences=1,
            return_dict_in_generate=False,
            pad_token_id=self._tokenizer.pad,
            eos_token_id=sorted(self._ends) or None,
        )
        begin = 1 if self._pairs else widest
        drawing = LogitsProcessorList()
        if noise is not None:
            drawing.append(Draw(torch.from_numpy(noise), begin, decoding))
        written: Tensor = self._model.generate(
            tokens.to(self._model.device),
            attention_mask=mask.to(self._model.device),
            generation_config=settings,
            logits_processor=drawing,
        )
        return [self._own(text) for text in written[:, begin:].tolist()]

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(tokens)

    def needed(self, size: int, prompt: int, decoding: Decoding) -> Memory | None:
        if self._architecture is None:
            return None
        execution = Execution(
            purpose="generation",
            micro_batch_size=size,
            length=decoding.max_new_tokens + (1 if self._pairs else prompt),
            source_length=prompt if self._pairs else 0,
            beams=decoding.num_beams,
            kind=self._device.kind,
            precision=self._precision,
            weights=self._precision,
            attention=kernel(self._device, self._precision, self._architecture),
        )
        return memory.of(self._architecture, execution)

    def _own(self, text: list[int]) -> list[int]:
        """Up to the token that ends it; behind that there is padding, which may be the same token."""
        end = next((place for place, token in enumerate(text) if token in self._ends), len(text))
        return text[:end]

    def _end_tokens(self) -> frozenset[int]:
        """What the model says, and its tokenizer's: with another one than its own it was trained to end so."""
        said = self._model.generation_config.eos_token_id
        own = self._tokenizer.end_of_text
        return frozenset([*(said if isinstance(said, list) else [said]), own]) - {None}

    def _first(self) -> int:
        """What a causal model is given where there is no prompt."""
        known = (self._model.generation_config.bos_token_id, *sorted(self._ends), 0)
        return int(next(token for token in known if token is not None))

    def _room(self, wanted: int | None, new: int) -> int:
        """Tokens of the longest prompt: what is wanted, what positions there are for, less what will be written."""
        positions = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        room = positions if self._pairs or positions is None else positions - new
        if room is not None and room < 1:
            raise ConfigError(
                f"{new:,} new tokens leave no room for a prompt",
                where=self.name,
                why=f"the model knows {room + new:,} positions, prompt and text together",
                suggestion=f"--max-new-tokens {(room + new) // 2}",
            )
        theirs = self._tokenizer.transformers
        known = theirs.model_max_length if theirs is not None else ENDLESS
        limits = [limit for limit in (wanted, room, known if known < ENDLESS else None) if limit is not None]
        return min(limits, default=UNKNOWN)


class Draw(LogitsProcessor):
    """Leaves the one token that is drawn by a row's own number, so that ``generate`` takes it as the likeliest.

    transformers draws by the process's random state, where a row's text hangs on the rows beside it.
    """

    def __init__(self, noise: Tensor, begin: int, decoding: Decoding) -> None:
        self._noise, self._begin, self._decoding = noise, begin, decoding  # noise: (B, max_new_tokens)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, tokens so far) and (B, V) → (B, V), minus infinity everywhere but at one token."""
        how, place = self._decoding, input_ids.size(1) - self._begin
        noise = self._noise[:, place : place + 1].to(scores.device)
        token = choose(scores.float(), noise, how.temperature, how.top_k, how.top_p)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)
