"""Models of transformers as small as they get, with fresh weights, and examples for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    CohereConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MT5Config,
    Qwen3Config,
    T5Config,
)

from ganeum.data.batch import IGNORED, Batch

V = 60
T5 = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4, "vocab_size": V}
T5 |= {"dropout_rate": 0.0, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": V,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
BART = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in (("layers", 1), ("ffn_dim", 32))}
PAIRS: dict[str, Any] = {
    "t5": T5Config(**T5),
    "t5 gated untied": T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "mt5": MT5Config(**T5),
    "bart": BartConfig(
        d_model=16, encoder_attention_heads=4, decoder_attention_heads=4, vocab_size=V, dropout=0.0, **BART
    ),
}
TEXTS: dict[str, Any] = {
    "gpt2": GPT2Config(
        n_embd=16, n_layer=2, n_head=4, vocab_size=V, n_positions=64, bos_token_id=1, eos_token_id=1,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    ),
    "llama": LlamaConfig(**LLAMA),
    "qwen3": Qwen3Config(**LLAMA, head_dim=8),
    "cohere": CohereConfig(**LLAMA, logit_scale=0.25),
    "mistral": MistralConfig(**LLAMA, sliding_window=4),
}  # fmt: skip


def made(config: Any, seed: int = 0) -> Any:
    """transformers' model of a config, in training mode."""
    torch.manual_seed(seed)
    kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_config(config).train()  # with the attention that it has by default
    with torch.no_grad():  # fresh weights are so alike that many a mistake would not show
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def ids(length: int, seed: int) -> Tensor:
    return torch.randint(2, V, (length,), generator=torch.Generator().manual_seed(seed))


def padded(rows: list[Tensor], value: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)


def pair_batch(sources: list[Tensor], targets: list[Tensor], start: int) -> Batch:
    """Padded at the right, the decoder reading the targets one later."""
    read = [torch.cat((torch.tensor([start]), target[:-1])) for target in targets]
    labels = padded(targets, IGNORED)
    inputs = {
        "source_tokens": padded(sources, 0),
        "source_mask": padded([torch.ones_like(s, dtype=torch.bool) for s in sources], 0),
        "target_tokens": padded(read, 0),
    }
    return Batch(inputs, labels, (labels.flatten() != IGNORED).nonzero().flatten())


def text_batch(texts: list[Tensor]) -> Batch:
    """Padded at the right; each token but the last is followed by its target."""
    labels = padded([text[1:] for text in texts], IGNORED)
    inputs = {"tokens": padded([text[:-1] for text in texts], 0)}
    return Batch(inputs, labels, (labels.flatten() != IGNORED).nonzero().flatten())
