"""The GPT: a decoder-only transformer to read in one sitting, in two styles.

- ``gpt2``: learned positions, LayerNorm, an MLP with GELU, biases if wanted. GPT-2's and nanoGPT's.
- ``modern``: rotary positions, RMSNorm, SwiGLU, normed queries and keys, groups of heads that share keys and values, no
  biases. Qwen3's (arXiv 2505.09388, section 2).

Shapes: B = sequences, T = tokens in each, C = n_embd, H = n_head, K = n_kv_head, D = head_dim, I = intermediate_size,
V = vocab_size, P = padded_vocab_size (V rounded up to a multiple of 64, which matrix units like).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganeum.config import sizes
from ganeum.config.schema import Model
from ganeum.models.attention import causal
from ganeum.models.cache import Cache
from ganeum.models.cpu_attention import LONGEST, causal_attention
from ganeum.models.cpu_norm import rms_norm
from ganeum.models.network import Network
from ganeum.models.rotary import Rotary, Rotation, rotate

VOCAB_MULTIPLE = 64


def padded_vocab_size(vocab_size: int) -> int:
    """The rows that the embedding really has: 50,257 tokens → 50,304 rows."""
    return -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


class LayerNorm(nn.Module):
    def __init__(self, width: int, bias: bool, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """LayerNorm without the mean: x / √(mean x²) (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return rms_norm(x, self.weight, self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def norm(config: Model) -> LayerNorm | RMSNorm:
    """The norm of the residual stream."""
    eps = sizes.norm_eps(config)
    return RMSNorm(config.n_embd, eps) if config.style == "modern" else LayerNorm(config.n_embd, config.bias, eps)


class Attention(nn.Module):
    """Each token looks at itself and at those before it. K heads of keys and values serve H heads of queries."""

    def __init__(self, config: Model, layer: int) -> None:
        super().__init__()
        self.layer, self.dropout = layer, sizes.dropout(config)
        self.n_head, self.n_kv_head, self.head_dim = config.n_head, sizes.n_kv_head(config), sizes.head_dim(config)
        self.qkv = nn.Linear(config.n_embd, sum(sizes.qkv_widths(config)), bias=sizes.qkv_bias(config))
        self.out = nn.Linear(self.n_head * self.head_dim, config.n_embd, bias=config.bias)
        if config.style == "modern":
            self.q_norm = RMSNorm(self.head_dim, sizes.norm_eps(config))
            self.k_norm = RMSNorm(self.head_dim, sizes.norm_eps(config))

    def forward(self, x: Tensor, rotation: Rotation | None, cache: Cache | None) -> Tensor:
        B, T, _ = x.shape
        H, K, D = self.n_head, self.n_kv_head, self.head_dim
        qkv = self.qkv(x).view(B, T, H + 2 * K, D)
        dropout = self.dropout if self.training else 0.0
        if x.device.type == "cpu" and T <= LONGEST and cache is None and not dropout:
            norms = None if rotation is None else (self.q_norm.weight, self.k_norm.weight, self.q_norm.eps)
            return self.out(causal_attention(qkv, H, norms, rotation))  # 2.5 times as fast as torch's, in bf16
        q, k, v = qkv.split((H, K, K), dim=2)  # (B, T, H, D), (B, T, K, D), (B, T, K, D)
        if rotation is not None:  # in fp32, and rounded once
            q = rotate(self.q_norm(q.float()), rotation).to(v.dtype)
            k = rotate(self.k_norm(k.float()), rotation).to(v.dtype)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, H, T, D), (B, K, T, D), (B, K, T, D)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)
        y = causal(q, k, v, dropout=dropout)  # (B, H, T, D)
        return self.out(y.transpose(1, 2).reshape(B, T, H * D))


class MLP(nn.Module):
    """Wide inside, with GELU between: down(gelu(up(x)))."""

    def __init__(self, config: Model) -> None:
        super().__init__()
        self.approximate = "tanh" if config.activation == "gelu_tanh" else "none"
        self.up = nn.Linear(config.n_embd, sizes.intermediate_size(config), bias=config.bias)
        self.down = nn.Linear(sizes.intermediate_size(config), config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate=self.approximate))  # (B, T, I) inside


class SwiGLU(nn.Module):
    """An MLP whose inside is gated: down(silu(gate(x)) · up(x)) (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: Model) -> None:
        super().__init__()
        self.gate = nn.Linear(config.n_embd, sizes.intermediate_size(config), bias=False)
        self.up = nn.Linear(config.n_embd, sizes.intermediate_size(config), bias=False)
        self.down = nn.Linear(sizes.intermediate_size(config), config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))  # (B, T, I) inside


class Block(nn.Module):
    """Attention mixes between tokens, the MLP within each; both add to the residual stream."""

    def __init__(self, config: Model, layer: int) -> None:
        super().__init__()
        self.norm_1 = norm(config)
        self.attention = Attention(config, layer)
        self.norm_2 = norm(config)
        self.mlp = SwiGLU(config) if config.style == "modern" else MLP(config)
        self.dropout = nn.Dropout(sizes.dropout(config))

    def forward(self, x: Tensor, rotation: Rotation | None, cache: Cache | None) -> Tensor:
        x = x + self.dropout(self.attention(self.norm_1(x), rotation, cache))
        return x + self.dropout(self.feed_forward(x))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm_2(x))  # apart, because activation checkpointing may compute just this again


class GPT(Network):
    """The whole model. ``config.vocab_size`` must be a number here, no longer ``auto``."""

    def __init__(self, config: Model) -> None:
        super().__init__()
        assert isinstance(config.vocab_size, int), "vocab_size is resolved before a model is built"
        assert config.head_dim or config.n_embd % config.n_head == 0, "n_embd must be a multiple of n_head"
        assert config.n_head % sizes.n_kv_head(config) == 0, "n_head must be a multiple of n_kv_head"
        modern = config.style == "modern"
        self.config = config
        self.vocab_size = config.vocab_size
        self.token_embedding = nn.Embedding(padded_vocab_size(config.vocab_size), config.n_embd)
        self.position_embedding = None if modern else nn.Embedding(config.block_size, config.n_embd)
        self.rotary = Rotary(config.block_size, sizes.head_dim(config), config.rope_theta) if modern else None
        self.dropout = nn.Dropout(sizes.dropout(config))
        self.blocks = nn.ModuleList([Block(config, layer) for layer in range(config.n_layer)])
        self.norm = norm(config)
        self.head = nn.Linear(config.n_embd, padded_vocab_size(config.vocab_size), bias=False)
        if config.tie_embeddings:
            self.head.weight = self.token_embedding.weight
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """GPT-2's: normal with deviation 0.02; what writes into the residual stream is divided by √(2 n_layer)
        (Radford et al. 2019, section 2.3). The padded rows are zero and stay so: no token ever uses them."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
                std = 0.02 / math.sqrt(2 * self.config.n_layer) if residual else 0.02
                nn.init.normal_(parameter, mean=0.0, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        self.token_embedding.weight[self.vocab_size :] = 0.0
        self.head.weight[self.vocab_size :] = 0.0

    def hidden(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """(B, T) token ids → (B, T, C), the residual stream after the last norm; the head is applied by the caller,
        because training does it in chunks and generation only at the last position."""
        start = 0 if cache is None else cache.length
        end = start + tokens.size(1)
        x = self.token_embedding(tokens)  # (B, T, C)
        if self.position_embedding is not None:
            x = x + self.position_embedding(torch.arange(start, end, device=tokens.device))
        x = self.dropout(x)
        rotation = None if self.rotary is None else self.rotary(start, end)
        for block in self.blocks:
            x = block(x, rotation, cache)
        if cache is not None:
            cache.length = end
        return self.norm(x)

    def one_sequence(self) -> dict[str, Tensor]:
        return {"tokens": torch.zeros(1, self.config.block_size, dtype=torch.int64)}

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """(B, T) token ids → (B, T, V) logits, without the padding."""
        return self.head(self.hidden(tokens, cache))[..., : self.vocab_size]
