"""Reading and writing text, traced: a forward pass over what is given, and the tokens that the cache grows by.

A text of thousands of tokens need not be written to know its memory. What is given is read; then the cache is as large
as it will be before the last token, and that one is written. So nothing between is traced, and nothing is missed: in
between everything grows.

Shapes: B = sequences, times the beams; S = tokens of the source, T = tokens of the text, D = size of a head.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ganeum.models.adopted import Adopted
from ganeum.models.cache import Cache
from ganeum.models.generate import choose
from ganeum.models.gpt import GPT
from ganeum.models.network import Network
from ganeum.plan.execution import Execution

TEMPERATURE, TOP_K = 0.8, 200  # of a sample, as ``ganeum sample`` draws it unless told otherwise
WIDTHS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@torch.no_grad()
def written(network: Network, way: Execution, device: str) -> None:
    """The prompt, all but one of ``way.length`` tokens, is read and one is written; behind an encoder, which reads
    ``way.source_length`` tokens, the first and the last of ``way.length`` are written."""
    network.eval()
    if isinstance(network, Adopted):
        _theirs(network.model, way, device)
        return
    assert isinstance(network, GPT), "a network is ours or adopted"
    with _rounded(way, device):
        cache, unread = Cache(network.config), _ids(way.micro_batch_size, max(1, way.length - 1), device)
        for _ in range(2):
            logits = network.head(network.hidden(unread, cache)[:, -1])[:, : network.vocab_size].float()
            unread = _drawn(logits)
            if cache.length >= way.length or cache.length >= cache.room:
                break


@torch.no_grad()
def read(network: Network, way: Execution, device: str) -> None:
    """One forward pass with the logits of every token."""
    network.eval()
    B, T = way.micro_batch_size, way.length
    if not isinstance(network, Adopted):
        with _rounded(way, device):
            network(_ids(B, T, device))
        return
    model = network.model
    if not network.encoder_decoder:
        model(input_ids=_ids(B, T, device), use_cache=False)
        return
    source = _ids(B, way.source_length, device)
    model(
        input_ids=source, decoder_input_ids=_ids(B, T, device), attention_mask=torch.ones_like(source), use_cache=False
    )


def narrow(network: Network, way: Execution) -> None:
    """Whole weights in two bytes, as transformers' models are generated with; ours stay in fp32, under autocast."""
    if isinstance(network, Adopted):
        network.model.to(dtype=WIDTHS.get(way.weights, torch.float32))


def _theirs(model: Any, way: Execution, device: str) -> None:
    """As transformers' ``generate`` goes about it, without what decides when to stop."""
    B = way.micro_batch_size * way.beams
    if not model.config.is_encoder_decoder:
        tokens = _ids(B, max(1, way.length - 1), device)
        out = _next(model, tokens, torch.ones_like(tokens), None)
        _reorder(out, way, B, device)
        _next(model, _drawn(out[0]), torch.ones(B, way.length, dtype=torch.int64, device=device), out[1])
        return
    source = _ids(way.micro_batch_size, way.source_length, device)
    mask = torch.ones_like(source)
    encoded = model.get_encoder()(input_ids=source, attention_mask=mask)
    if way.beams > 1:
        encoded.last_hidden_state = encoded.last_hidden_state.repeat_interleave(way.beams, dim=0)
        mask = mask.repeat_interleave(way.beams, dim=0)
    out = _next(model, _ids(B, 1, device), mask, None, encoder_outputs=encoded)
    _grow(getattr(out[1], "self_attention_cache", out[1]), way.length - 2)
    _reorder(out, way, B, device)
    _next(model, _drawn(out[0]), mask, out[1], encoder_outputs=encoded)


def _next(model: Any, tokens: Tensor, mask: Tensor, cache: Any, **more: Any) -> tuple[Tensor, Any]:
    """Logits of the last token in fp32 (B, V), and the cache."""
    inputs: dict[str, Any] = {"attention_mask": mask, "past_key_values": cache, "use_cache": True, **more}
    inputs["decoder_input_ids" if model.config.is_encoder_decoder else "input_ids"] = tokens
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        inputs["logits_to_keep"] = 1
    out = model(**inputs)
    return out.logits[:, -1].to(copy=True, dtype=torch.float32), out.past_key_values


def _grow(cache: Any, length: int) -> None:
    """Room for ``length`` tokens in every layer, whatever they are: (B, H, tokens, D) twice."""
    for layer in cache.layers:
        if length > layer.keys.size(2):
            for name in ("keys", "values"):
                kept = getattr(layer, name)
                B, H, _, D = kept.shape
                setattr(layer, name, kept.new_empty(B, H, length, D))


def _reorder(out: tuple[Tensor, Any], way: Execution, B: int, device: str) -> None:
    """Beams change places, with what they have read."""
    if way.beams > 1:
        out[1].reorder_cache(torch.zeros(B, dtype=torch.int64, device=device))


def _drawn(logits: Tensor) -> Tensor:
    """(B, V) → (B, 1)."""
    return choose(logits, logits.new_empty(len(logits), 1), TEMPERATURE, TOP_K, None)


def _ids(rows: int, length: int, device: str) -> Tensor:
    return torch.zeros(rows, length, dtype=torch.int64, device=device)


def _rounded(way: Execution, device: str) -> AbstractContextManager[Any]:
    return torch.autocast(device, WIDTHS[way.precision]) if way.half else nullcontext()
