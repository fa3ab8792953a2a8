"""AdamW whose averages lie in 8 bits: a block of 256 numbers shares one scale, each is one of 256 levels.

The levels are dense near zero, and without a sign for the squares (Dettmers et al. 2021, arXiv 2110.02861, 1.3); they
and the blocks are torchao's, so this computes what its AdamW8bit does. torchao compiles each shape's update to
keep the temporaries small; here a piece is small from the start (optimizers.PIECE), and nothing needs a compiler.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from ganeum.errors import MissingExtra
from ganeum.models.quiet import quiet
from ganeum.step.rules import AdamW, Pace, State

BLOCK = 256  # torchao's
LEAST = 4_096  # weights; the state of fewer stays in fp32, torchao's rule too


class AdamW8bit:
    """A rule (see rules.py) for a stack of one: state 2 bytes and 1/32 for each weight in place of 8.

    Raises:
        MissingExtra: torchao is not installed.
    """

    def __init__(self, beta1: float, beta2: float) -> None:
        require()
        self.exact = AdamW(beta1, beta2)
        self.levels = {name: _levels(signed) for name, signed in (("mean", True), ("square", False))}

    def start(self, weight: Tensor) -> State:
        self.levels = {name: levels.to(weight.device) for name, levels in self.levels.items()}
        state = self.exact.start(weight)
        return self._packed(state) if weight.numel() >= LEAST and weight.numel() % BLOCK == 0 else state

    def __call__(self, weight: Tensor, gradient: Tensor, state: State, pace: Pace) -> tuple[Tensor, State]:
        if "mean" in state:
            return self.exact(weight, gradient, state, pace)
        weight, new = self.exact(  # what is unpacked is forgotten before anything is packed
            weight, gradient, {name: self._unpack(name, state).view_as(weight) for name in self.levels}, pace
        )
        return weight, self._packed(new)

    def _packed(self, state: State) -> State:
        """{mean, square} in fp32 → {mean_codes, mean_scale, …}: codes (n / 256, 256) uint8, scales (n / 256, 1)."""
        packed: State = {}
        for name, values in state.items():
            levels = self.levels[name]
            blocks = values.reshape(-1, BLOCK)
            largest = blocks.abs().amax(-1, keepdim=True).clamp_min(1e-12)
            between = (levels[1:] + levels[:-1]) / 2  # nearest level: how many of the midpoints lie below
            codes = torch.bucketize(blocks / largest, between, out_int32=True, right=True)
            packed |= {f"{name}_codes": codes.to(torch.uint8), f"{name}_scale": largest}
        return packed

    def _unpack(self, name: str, state: State) -> Tensor:
        codes = state[f"{name}_codes"]
        levels = self.levels[name].index_select(0, codes.view(-1).int())  # an index in brackets would be made int64
        return levels.view_as(codes).mul_(state[f"{name}_scale"])


def require() -> None:
    """Raises MissingExtra where torchao is not installed; imports nothing."""
    if importlib.util.find_spec("torchao") is None:
        raise MissingExtra(
            "train.optimizer is adamw8bit, and the package torchao is not installed",
            suggestion='pip install "ganeum[8bit]", or train.optimizer=adamw',
        )


def _levels(signed: bool) -> Tensor:
    """(256,) ascending in fp32, from −1 or 0 to 1."""
    with quiet():
        from torchao.optim.quant_utils import create_dynamic_map  # type: ignore[import-untyped,import-not-found,unused-ignore]
    return torch.tensor(create_dynamic_map(signed))
