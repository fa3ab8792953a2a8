"""What a model of transformers makes of its hidden states: a linear layer, a bias or a cap behind it, or more.

With the layer, the bias and the cap in :class:`ganeum.models.network.Output` the loss makes logits itself, a chunk of
rows at a time. A model that does more (or has no such layer) gives whole logits, at the price of their memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from ganeum.errors import ConfigError
from ganeum.models.network import Output

CAP, BIAS = "final_logit_softcapping", "final_logits_bias"  # what transformers calls them
LOUD = 50.0  # logits large enough to feel any cap
SAME = 1e-4  # of the largest: rounding of a factor behind the layer


class OutputOfTheirs:
    """``whole``: its logits cannot be made by the loss. ``set_aside()``: a context in which the model gives what its
    output layer is to be applied to, or whole logits.

    Args:
        model: of transformers.
        run: the model on a few tokens → (1, T, V) logits, with no gradients and nothing dropped.
    """

    def __init__(self, model: Any, run: Callable[[], Tensor]) -> None:
        self.model, self.head = model, model.get_output_embeddings()
        self.cap: float | None = getattr(model.config, CAP, None)
        linear = isinstance(self.head, nn.Linear) and type(self.head).forward is nn.Linear.forward
        self.whole = False
        self.whole = not linear or not self._is_last(run)

    def __call__(self) -> Output:
        if self.whole:
            return Output(None)
        bias, more = self.head.bias, getattr(self.model, BIAS, None)
        if more is not None:
            bias = more.flatten() if bias is None else bias + more.flatten()
        return Output(self.head.weight, bias, self.cap)

    @contextmanager
    def set_aside(self, through: Callable[[Tensor], Tensor] = lambda hidden: hidden) -> Iterator[None]:
        """The layer gives what ``through`` makes of hidden states: itself what it gets."""
        if self.whole:
            yield
            return
        bias = getattr(self.model, BIAS, None)
        self.head.forward = through
        if bias is not None:
            setattr(self.model, BIAS, bias.new_zeros(1, 1))
        if self.cap is not None:  # past the config's own setter, which checks what it says and not what is asked of it
            vars(self.model.config)[CAP] = None
        try:
            yield
        finally:
            del self.head.forward  # the class's own is there again
            if bias is not None:
                setattr(self.model, BIAS, bias)
            if self.cap is not None:
                vars(self.model.config)[CAP] = self.cap

    def _is_last(self, run: Callable[[], Tensor]) -> bool:
        """Whether what comes out is what the layer gives, times a number: whatever the weights are, also none yet."""
        weight = self.head.weight
        if weight.device.type == "meta" or isinstance(weight, FakeTensor):  # no numbers to look at: planned or traced
            return True
        given: list[Tensor] = []

        def through(hidden: Tensor) -> Tensor:
            places = torch.arange(hidden.size(0) * hidden.size(1) * len(weight), dtype=torch.float32)
            given.append(LOUD * torch.sin(places).view(*hidden.shape[:2], -1).to(weight.device))
            return given[-1]

        try:
            with self.set_aside(through):
                out = run()
        except ConfigError:  # a cap that it cannot do without, a shape that it needs
            return False
        if len(given) != 1 or out.shape != given[0].shape:
            return False
        factor = (out * given[0]).sum() / given[0].square().sum()
        return bool(torch.allclose(out, factor * given[0], rtol=0.0, atol=SAME * LOUD * factor.abs().item()))
