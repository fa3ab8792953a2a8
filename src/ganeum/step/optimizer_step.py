"""One optimizer step: micro-batches forward and backward, gradients clipped, weights updated, and no waiting.

Nothing here reads a value back from the device: loss, norm, skipped updates and the first bad step stay there as
tensors until the loop looks at them on a logged step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ganeum.config.schema import Train
from ganeum.data.batch import Batch, Whole
from ganeum.models.network import Network
from ganeum.models.weights import to_file_state
from ganeum.step import precision as precisions
from ganeum.step.loss import linear_cross_entropy, token_nats
from ganeum.step.optimizers import Optimizer
from ganeum.step.timings import Timings

T = TypeVar("T")
FIRST_SCALE, GROWTH_INTERVAL = 2.0**16, 2_000  # torch.amp.GradScaler's own


@dataclass(frozen=True)
class StepResult:
    """What one step was: ``loss`` () nats per token over the whole batch and ``grad_norm`` () before clipping, both
    on the device; ``tokens`` seen by it, and places that held nothing (``padding``)."""

    loss: Tensor
    grad_norm: Tensor
    tokens: int
    padding: int = 0


class OptimizerStep:
    """Holds the optimizer (and fp16's loss scale) of a model, and takes steps with it.

    The gradient is that of the mean over the whole batch, however it is split into micro-batches. An update whose
    gradient norm is not finite is skipped on the device, so one bad batch never reaches the weights: look at
    ``first_bad_step`` (int64 (): the first such step, −1 while there is none; in fp16, where a too large loss scale
    overflows now and then and is halved, only a non-finite *loss* is bad) before a checkpoint is written and on
    logged steps, and at ``skipped`` for how many updates were left out.
    """

    def __init__(
        self,
        model: Network,
        train: Train,
        device: torch.device | str,
        *,
        precision: precisions.Precision = "fp32",
        compiled: bool = False,
        loss_chunk: int | None = None,
    ) -> None:
        self.model, self.train, self.device, self.precision = model, train, torch.device(device), precision
        precisions.apply(precision)
        self.dtype = precisions.COMPUTE_DTYPE[precision]
        self.loss_chunk = loss_chunk or default_loss_chunk(self.device)
        self.hidden = model.compiled() if compiled else model.hidden
        self.optimizer = Optimizer(model, train, self.device, self.dtype)
        self.parameters = self.optimizer.parameters
        self.loss_scale = torch.tensor(FIRST_SCALE if precision == "fp16" else 1.0, device=self.device)
        self.good_steps = torch.tensor(0, device=self.device)  # updates in a row since the loss scale last changed
        self.skipped = torch.tensor(0, device=self.device)
        self.first_bad_step = torch.tensor(-1, device=self.device)

    def __call__(
        self,
        micro_batches: Iterable[Batch],
        *,
        targets: int,
        step: int,
        learning_rate: float,
        timings: Timings | None = None,
    ) -> StepResult:
        """Take the update after ``step`` completed ones.

        Args:
            micro_batches: the whole batch in parts, on the device or on the CPU (they are then copied without waiting).
            targets: how many count in all of them together; known beforehand, because each part's share of the mean
                is taken as it is computed.
            step: updates completed so far.
            learning_rate: of this update.
            timings: filled with the seconds of each part; makes the device wait, so only for logged steps.
        """
        timings = timings or Timings()
        total = torch.zeros((), device=self.device)
        counted = tokens = padding = 0
        micro_batches = iter(micro_batches)
        while True:
            with timings.part("data"):
                batch = next(micro_batches, None)
                if batch is None:
                    break
                batch = batch.to(self.device)
            with timings.part("forward"):
                loss = self._loss(batch, targets)
            with timings.part("backward"):
                self._backward(loss)
            total += loss.detach()
            counted, tokens, padding = counted + batch.counted, tokens + batch.tokens, padding + batch.padding
        assert counted == targets, f"{counted} targets in a batch of {targets}"
        with timings.part("optimizer"):
            total /= self.loss_scale
            norm = self._update(step, learning_rate, total)
        return StepResult(total, norm, tokens, padding)

    def on(
        self,
        batch: Whole,
        *,
        step: int,
        learning_rate: float,
        at_once: int | None = None,
        timings: Timings | None = None,
    ) -> StepResult:
        """The same on a whole batch; ``at_once``: sequences in each part, default all."""
        parts = batch.micro_batches(at_once or len(batch))
        return self(parts, targets=batch.targets, step=step, learning_rate=learning_rate, timings=timings)

    @torch.no_grad()
    def token_nats(self, batch: Batch) -> Tensor:
        """Nats of each target as the training computes them, for evaluation: (B, T), or (N,) of those that count."""
        batch = batch.to(self.device)
        hidden, targets = self._rows(batch)
        output = self.model.output()
        nats = token_nats(
            hidden,
            output.weight,
            targets,
            vocab_size=self.model.vocab_size,
            chunk=self.loss_chunk,
            bias=output.bias,
            cap=output.cap,
            dtype=self.dtype,
        )
        return nats if batch.rows is not None else nats.view_as(batch.targets)

    def inside(self, function: Callable[..., T], *inputs: Any) -> T:
        """``function(*inputs)``, where the network's weights can be read: text is generated so."""
        return function(*inputs)

    def weights(self) -> dict[str, Tensor]:
        """What a checkpoint holds of the network (:func:`to_file_state`): views of its memory, until the next step."""
        return to_file_state(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on beside the weights; tensors, numbers and text only."""
        names = ("loss_scale", "good_steps", "skipped", "first_bad_step")
        return {"optimizer": self.optimizer.state_dict(), **{name: getattr(self, name).cpu() for name in names}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned, on this or another device."""
        self.optimizer.load_state_dict(state["optimizer"])
        for name in ("loss_scale", "good_steps", "skipped", "first_bad_step"):
            getattr(self, name).copy_(state[name])

    def _rows(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Hidden states (N, C) and ids (N,) of the targets that count."""
        with precisions.autocast(self.precision, self.device):
            hidden = self.hidden(**batch.inputs)  # (B, T, C)
        hidden, targets = hidden.flatten(0, 1), batch.targets.flatten()
        if batch.rows is None:
            return hidden, targets
        return hidden.index_select(0, batch.rows), targets.index_select(0, batch.rows)

    def _loss(self, batch: Batch, targets: int) -> Tensor:
        """This micro-batch's share of the mean over all ``targets``, times the loss scale."""
        hidden, ids = self._rows(batch)
        output = self.model.output()
        return linear_cross_entropy(
            hidden,
            output.weight,
            ids,
            vocab_size=self.model.vocab_size,
            chunk=self.loss_chunk,
            bias=output.bias,
            cap=output.cap,
            dtype=self.dtype,
            scale=self.loss_scale / targets,
        )

    def _backward(self, loss: Tensor) -> None:
        """Adds its gradients to those of the micro-batches before."""
        loss.backward()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _update(self, step: int, learning_rate: float, loss: Tensor) -> Tensor:
        """Clip, update, forget the gradients; returns the norm before clipping. Loss scale and clipping are one
        divisor, which the optimizer applies as it reads the gradients: they cost no pass of their own."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients) / self.loss_scale
        bad = ~torch.isfinite(norm)
        clip = (norm / self.train.grad_clip).clamp_min(1.0) if self.train.grad_clip else torch.ones_like(norm)
        self.optimizer.step(learning_rate, self.loss_scale * clip, bad)
        self.optimizer.zero_grad()
        self._remember(step, bad, loss)
        return norm

    def _remember(self, step: int, bad: Tensor, loss: Tensor) -> None:
        """Count skipped updates, note the first bad step, and move fp16's loss scale: halved after an overflow,
        doubled after ``GROWTH_INTERVAL`` good updates in a row."""
        self.skipped += bad
        broken = bad
        if self.precision == "fp16":
            broken = ~torch.isfinite(loss)
            self.good_steps.copy_(torch.where(bad, 0, self.good_steps + 1))
            grow = self.good_steps == GROWTH_INTERVAL
            self.loss_scale.mul_(torch.where(bad, 0.5, torch.where(grow, 2.0, 1.0)))
            self.good_steps.masked_fill_(grow, 0)
        self.first_bad_step.copy_(torch.where(broken & (self.first_bad_step < 0), step + 1, self.first_bad_step))


def default_loss_chunk(device: torch.device) -> int:
    """Rows whose logits exist at one time: few enough to stay in a CPU's cache, enough to fill a GPU."""
    return 512 if device.type == "cpu" else 2_048
