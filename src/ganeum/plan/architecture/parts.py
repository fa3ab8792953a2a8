"""The parts that a model is made of: tables, matrices, norms and attentions, and how often each is there.

Parameters, FLOPs, memory and time are sums over these parts, so a model that is described here once is counted
everywhere. Matrices are those of the code that runs them: three for queries, keys and values are the same products as
one, but each gets an adapter, and a copy of its input under autocast, of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stream = Literal["encoder", "decoder"]
Positions = Literal["none", "learned", "rotary", "alibi", "relative"]


@dataclass(frozen=True)
class Table:
    """An embedding: ``rows`` vectors of ``width``, looked up and never multiplied."""

    name: str
    rows: int
    width: int

    @property
    def size(self) -> int:
        """Parameters."""
        return self.rows * self.width


@dataclass(frozen=True)
class Linear:
    """A matrix that every token of its stream is multiplied with: ``inputs`` numbers → ``outputs`` numbers."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False

    @property
    def weights(self) -> int:
        """Numbers in the matrix."""
        return self.inputs * self.outputs

    @property
    def size(self) -> int:
        """Parameters, the bias included."""
        return self.weights + self.outputs * self.bias


@dataclass(frozen=True)
class Norm:
    """LayerNorm (``mean``: it also takes the mean away) or RMSNorm, over the last ``width`` numbers."""

    name: str
    width: int
    mean: bool = True
    bias: bool = True

    @property
    def size(self) -> int:
        """Parameters: a scale, and an offset where there is one."""
        return self.width * (1 + self.bias)


@dataclass(frozen=True)
class Attention:
    """Queries of a block's own stream that meet keys and values, its own or the encoder's (``across``).

    ``linears`` are its matrices, the output's last: ``….qkv`` or ``….query``, ``….key`` and ``….value`` (which run over
    the encoder's tokens where it looks across), ``….out``; ``norms`` are those inside the heads. ``positions``: what it
    knows of where tokens are; ``relative`` and ``alibi`` add a bias to the scores.
    """

    heads: int
    kv_heads: int
    head_dim: int
    linears: tuple[Linear, ...]
    norms: tuple[Norm, ...] = ()
    causal: bool = True
    across: bool = False
    positions: Positions = "none"
    rotary_dim: int = 0

    @property
    def queries(self) -> int:
        """Width of all heads' queries together."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all heads' keys, and as much again for the values."""
        return self.kv_heads * self.head_dim


@dataclass(frozen=True)
class Block:
    """``count`` equal layers of one stream.

    Attributes:
        attentions: self-attention, and behind it the one that looks across, where there is one.
        mlp: its matrices in the order they are used: ``(up, down)``, or ``(gate, up, down)``.
        norms: those of the residual stream, in order: one before each part, or one for all (``parallel``).
        activation: the library's name of the function inside the MLP (``gelu_tanh``, ``silu``, ``relu``, …).
        parallel: attention and MLP read the same norm's output (GPT-J, CodeGen, Phi).
    """

    stream: Stream
    count: int
    width: int
    attentions: tuple[Attention, ...]
    mlp: tuple[Linear, ...]
    norms: tuple[Norm, ...]
    activation: str
    parallel: bool = False

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies two products (SwiGLU, gated GELU)."""
        return len(self.mlp) == 3

    @property
    def inside(self) -> int:
        """Width inside the MLP."""
        return self.mlp[-1].inputs

    @property
    def linears(self) -> tuple[Linear, ...]:
        """All matrices of one layer."""
        return (*(linear for attention in self.attentions for linear in attention.linears), *self.mlp)


@dataclass(frozen=True)
class Architecture:
    """A whole model.

    Attributes:
        name: as a person knows it.
        family: ``model_type`` of config.json, or ours: ``ganeum gpt2``, ``ganeum modern``.
        implementation: whose code runs it, which decides what is kept for the backward pass: ours, Hugging Face's in
            its Trainer, or theirs in a step of ours (``adopted``).
        tables: embeddings; the first is the tokens'.
        blocks: the encoder's and the decoder's.
        norms: those behind the last block of each stream, and behind the embedding where there is one.
        head: the output layer.
        tied: whether its weights are the token embedding's.
        extra: parameters that are none of these (T5's relative positions), by name.
        longest: tokens that positions are known for; None: any number.
        dropout: share of activations dropped in training, as its config says.
        rows: rows of the token embedding and of the head as they lie in memory, padding included.
        source: where its shape was read.
        note: what a person should know who reads its size.
    """

    name: str
    family: str
    implementation: Literal["ganeum", "transformers", "adopted"]
    vocab_size: int
    width: int
    tables: tuple[Table, ...]
    blocks: tuple[Block, ...]
    norms: tuple[Norm, ...]
    head: Linear
    tied: bool
    extra: tuple[tuple[str, int], ...] = ()
    longest: int | None = None
    dropout: float = 0.0
    rows: int = 0
    source: str = ""
    note: str = ""

    @property
    def encoder_decoder(self) -> bool:
        """Whether there are two streams."""
        return any(block.stream == "encoder" for block in self.blocks)

    @property
    def layers(self) -> int:
        """Layers in all, of both streams."""
        return sum(block.count for block in self.blocks)
