"""How big each weight begins, how fast it learns and how much it decays, at any width, depth and batch.

With ``mup`` the learning rate that is best for a small model is best for a larger one too. The sources:

- width: maximal update, Tensor Programs V (Yang et al. 2022, arXiv 2203.03466, table 8);
- depth: CompleteP (Dey et al. 2025, arXiv 2505.01618, table 1 at α = 1): what a block adds to the residual stream is
  divided by the depth;
- Muon: the spectral condition (Yang et al. 2023, arXiv 2310.17813): an update's spectral norm goes as √(out / in);
- batch: Adam's learning rate goes as the square root (Malladi et al. 2022, arXiv 2205.10287), and what decays in a
  token's time stays the same (Wang & Aitchison 2024, arXiv 2405.13698).

They divide outputs and branches in the forward pass. Here the forward pass stays GPT-2's and Qwen3's: whoever loads a
checkpoint need not know how it was trained. A factor on a weight is folded into the weight instead: initialisation
and learning rate are multiplied by it, which to Adam and Muon, whose updates have the same size whatever that of the
gradient, is the same thing (Tensor Programs V, appendix J.2.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from ganeum.config.schema import Model, Train

BASE_WIDTH, BASE_DEPTH, BASE_TOKENS = 256, 4, 16_384  # n_embd, n_layer, tokens in a batch: there mup is the standard
RESIDUAL = ("attention.out", "mlp.down")  # what writes into the residual stream


@dataclass(frozen=True)
class Scale:
    """What a weight's standard deviation at the start, learning rate and weight decay are multiplied by."""

    init: float = 1.0
    rate: float = 1.0
    decay: float = 1.0


def scale(name: str, shape: tuple[int, ...], model: Model, train: Train) -> Scale:
    """The multipliers of one weight; all 1 with ``standard``, and at the base size.

    With m = n_embd / 256, l = n_layer / 4 and b = tokens in a batch / 16,384:

    ================================  =========  ===================  ====================
    weight                            init       learning rate        weight decay
    ================================  =========  ===================  ====================
    embeddings, head                  1          √b                   √b
    norms and biases in the blocks    1          √b                   —
    matrices in the blocks            1/√m       √b / m (Muon /√m)    √b · m (Muon ·√m)
    the same, writing to the stream   1/√(m l)   √b / (m l) (/√m l)   √b · m l (·√m l)
    their biases                      1          √b / l               —
    the last norm                     1/m        √b / m               —
    ================================  =========  ===================  ====================

    - A matrix's learning rate times its weight decay is what it was, so that it forgets as fast.
    - The output is to be divided by m (Tensor Programs V): the last norm's weight is, because the head may share the
      token embedding's weights, which are also the input's.
    - ``init`` is on top of what the model does itself: a writer to the stream is divided by √(2 n_layer) there, and
      1/l is wanted.
    - Muon's rate is on top of its own 0.2 √(longer side), which grows as √m.

    Width is meant to grow by heads, not by wider ones: attention divides by √head_dim, where a growing head_dim would
    need head_dim itself.

    Args:
        name: as ``named_parameters`` gives it.
        shape: of the weight.
        model: its sizes.
        train: parametrization, optimizer and batch_size.
    """
    if train.parametrization == "standard":
        return Scale()
    m, l = model.n_embd / BASE_WIDTH, model.n_layer / BASE_DEPTH
    b = math.sqrt(train.batch_size * model.block_size / BASE_TOKENS)
    in_block, matrix = "blocks." in name, len(shape) >= 2
    writes = in_block and name.rpartition(".")[0].endswith(RESIDUAL)
    if not in_block:
        last_norm = name.startswith("norm.")
        return Scale(1 / m, b / m, b) if last_norm else Scale(1.0, b, b)
    depth = l if writes else 1.0
    if not matrix:
        return Scale(1.0, b / depth, b)
    width = math.sqrt(m) if train.optimizer == "muon" else m
    return Scale(1 / math.sqrt(m * depth), b / (width * depth), b * width * depth)


@torch.no_grad()
def initialise(model: nn.Module, config: Model, train: Train) -> None:
    """Multiply freshly initialised weights, in place; ``standard`` leaves them as they are."""
    for name, parameter in model.named_parameters():
        factor = scale(name, tuple(parameter.shape), config, train).init
        if factor != 1.0:
            parameter.mul_(factor)
