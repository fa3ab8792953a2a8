"""Some steps of a training, watched where torch computes: what was embedded, what the loss compared, what was updated.

A batch may look as it likes, and so may a step: ids are those that an embedding looks up, targets those that the loss
is told, and how much each counts is what its logits' gradient says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode

from ganeum.doctor.examine.nats import AT_ONCE, nats_of
from ganeum.doctor.examine.rounded import Rounding, rate_of
from ganeum.doctor.examine.seen import IGNORED, Call, Embedded, Loss, Pass, Seen, Update
from ganeum.doctor.examine.state import taken

if TYPE_CHECKING:
    from ganeum.doctor.measured.training import Training

READ_ONLY = 12  # batches that are read beside those that are stepped on
READ_S = 3.0
ROUNDING = 1e-2  # of what probabilities in 16 bits add up to


def watched(training: Training, steps: int) -> Seen:
    """Takes the steps. What they change stays changed."""
    import time

    watch = Watch(training.model)
    before = {name: p.detach().to("cpu", copy=True) for name, p in training.model.named_parameters()}
    batches = taken(training, steps + READ_ONLY)
    with watch.on():
        for batch in batches:
            watch.seen.batches.append(batch)
            watch.begin()
            try:
                training.step(batch)
            except Exception as error:  # the findings may explain it
                watch.seen.error = error
                break
            watch.seen.steps += 1
            if watch.seen.steps == steps:
                break
    until = time.monotonic() + READ_S
    for batch in batches:
        watch.seen.batches.append(batch)
        if time.monotonic() > until:
            break
    for name, parameter in training.model.named_parameters():
        if not torch.equal(parameter.detach().cpu(), before[name]):
            watch.seen.changed.add(name)
    return watch.seen


class Watch(TorchFunctionMode):
    """Sees what torch is called with, while it is on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.parameters = dict(model.named_parameters())
        self.model, self.seen = model, Seen(rounding=Rounding(self.parameters))
        self.now, self.open = Pass(), list[Pass]()
        self.place, self.backwards = 0, False
        self.pending = False  # whether there are gradients that no update has used yet
        self.used, self.mixed = set[int](), set[int]()  # parameters: an update has used their gradients; more came on
        self.before: dict[int, tuple[int, int]] = {}  # of those used: the gradient, as it was before a backward pass
        self.clip: tuple[float, float] | None = None
        self.scale = self.clip_scale = 1.0  # of the loss: now, and when it was clipped
        self.early = False  # whether it was clipped when there were no gradients
        self.inside = 0  # of an update of ours
        self.first = True  # of a step's backward passes
        self.within = self.asks = False  # of an optimizer's step; one that computes its gradients itself
        self.versions = 0  # of all weights, behind the backward pass before

    def begin(self) -> None:
        """A step begins."""
        self.now, self.first = Pass(), True

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watching, and nothing compiled."""
        with ExitStack() as stack:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            for module in self.model.named_modules():
                handle = module[1].register_forward_pre_hook(self._entered(*module), with_kwargs=True)
                stack.callback(handle.remove)
            self._patched(stack)
            handle = register_optimizer_step_pre_hook(self._stepping)
            stack.callback(handle.remove)
            handle = register_optimizer_step_post_hook(self._stepped)
            stack.callback(handle.remove)
            stack.enter_context(self)
            yield

    # ---------------------------------------------------------------------------------------------- what is called

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.backwards or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if func is F.embedding:
            self._embedding(*args, **kwargs)
        elif func is F.cross_entropy or func is F.nll_loss:
            self._compared(func is F.nll_loss, *args, **kwargs)
        elif func in (torch.gather, Tensor.gather):
            self._gathered(*args, **kwargs)
        elif func is F.dropout:
            self._dropout(*args, **kwargs)
        elif func is F.scaled_dot_product_attention:
            self._dropout(None, kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0))
        return func(*args, **kwargs)

    def _dropout(self, input: Tensor | None, p: float = 0.5, training: bool = True, inplace: bool = False) -> None:
        if training:
            self.seen.dropped = max(self.seen.dropped, p)

    def _embedding(self, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> None:
        ids = input.detach().to("cpu", torch.int64)
        self.now.embedded.append(Embedded(ids, weight.shape[0], self.place))
        self.place += 1
        self._beyond("places" if ids.numel() > 1 and _counts_up(ids) else "ids", ids, weight.shape[0])

    def _beyond(self, which: str, ids: Tensor, rows: int) -> None:
        if ids.numel() and (int(ids.max()) >= rows or int(ids.min()) < 0):
            worst = int(ids.max()) if int(ids.max()) >= rows else int(ids.min())
            self.seen.beyond.append((which, worst, rows))

    def _compared(self, is_log: bool, input: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> None:
        if target.is_floating_point() or input.ndim not in (target.ndim, target.ndim + 1):
            return
        ignored = kwargs.get("ignore_index", args[2] if len(args) > 2 else IGNORED)
        classes = 0 if input.ndim == 1 else 1
        self._loss(input, target, classes, ignored, is_log)

    def _gathered(self, input: Tensor, dim: Any = None, index: Any = None, **kwargs: Any) -> None:
        """Log-probabilities of targets, taken out by hand."""
        if not isinstance(index, Tensor) or not isinstance(dim, int) or not input.requires_grad or input.ndim < 2:
            return
        if dim % input.ndim != input.ndim - 1 or index.shape[-1:] != (1,) or index.shape[:-1] != input.shape[:-1]:
            return
        if float(input.detach().max()) <= 0:
            self._loss(input, index[..., 0], input.ndim - 1, IGNORED, True, told=False)

    def _loss(self, logits: Tensor, target: Tensor, dim: int, ignored: int, is_log: bool, *, told: bool = True) -> None:
        shaped = logits.detach().movedim(dim, -1)
        rows, ids = shaped.reshape(-1, shaped.shape[-1]), target.detach().reshape(-1)
        counts = ids != ignored
        self._beyond("logits", ids[counts].cpu(), rows.shape[1])
        safe = torch.where(counts, ids, 0).clamp(0, rows.shape[1] - 1)
        nats = nats_of(rows, safe, is_log)
        mean = float(nats[counts].mean()) if bool(counts.any()) else float("nan")
        some = rows[counts][:AT_ONCE].float()
        spread = float(some.std(-1).mean()) if len(some) and not is_log else None
        targets = torch.where(counts, ids, IGNORED).cpu()
        probabilities = not is_log and _are_probabilities(some)
        seen = Loss(targets, rows.shape[1], nats.cpu(), mean, spread, told=told, probabilities=probabilities)
        self.now.losses.append(seen)
        if logits.requires_grad:

            def weigh(gradient: Tensor) -> None:
                """Of one row it is w · (p − 1) at the target; of log-probabilities −w."""
                flat = gradient.detach().movedim(dim, -1).reshape(-1, gradient.shape[dim])
                at = -flat.gather(1, safe[:, None])[:, 0].float()
                seen.weights = (at if is_log else at / (-torch.expm1(-nats)).clamp_min(1e-6)).cpu()

            logits.register_hook(weigh)  # type: ignore[no-untyped-call]

    def _entered(self, name: str, module: nn.Module) -> Callable[..., None]:
        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            if self.backwards or not (torch.is_grad_enabled() or self.now.call is not None):
                return
            self.seen.called.setdefault(name)  # also without a way back, within a forward pass that has one
            if not torch.is_grad_enabled():
                return
            if module is self.model and self.now.call is None:
                self.now.call, self.place = Call(module, module, args, dict(kwargs)), 0
                self.now.in_training = module.training

        return enter

    def _patched(self, stack: ExitStack) -> None:
        """What no hook sees: the way backward, clipping, and steps of ours, whose loss is a function of its own."""
        backward = torch.autograd.backward

        def watched_backward(*args: Any, **kwargs: Any) -> Any:
            if self.backwards:
                return backward(*args, **kwargs)
            self._before_backward()
            self.now.value = _number(*args, **kwargs)
            self.backwards = True
            try:
                return backward(*args, **kwargs)
            finally:
                self.backwards = False
                self._after_backward()

        clip = torch.nn.utils.clip_grad._clip_grads_with_norm_

        def watched_clip(parameters: Any, max_norm: float, total_norm: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._norm(self._all()) > 0:
                self.clip, self.clip_scale = (float(total_norm), float(max_norm)), self.scale
            else:
                self.early = True
            return clip(parameters, max_norm, total_norm, *args, **kwargs)

        scale = torch.amp.GradScaler.scale

        def watched_scale(scaler: Any, outputs: Any) -> Any:
            self.seen.scaled = True
            scaled = scale(scaler, outputs)
            self.scale = float(scaler.get_scale())
            return scaled

        unscale = torch.amp.GradScaler.unscale_

        def watched_unscale(scaler: Any, optimizer: Any) -> None:
            self.scale = 1.0
            unscale(scaler, optimizer)

        stack.enter_context(patch.object(torch.autograd, "backward", watched_backward))
        stack.enter_context(patch.object(torch.nn.utils.clip_grad, "_clip_grads_with_norm_", watched_clip))
        stack.enter_context(patch.object(torch.amp.GradScaler, "scale", watched_scale))
        stack.enter_context(patch.object(torch.amp.GradScaler, "unscale_", watched_unscale))
        self._patched_ours(stack)

    def _patched_ours(self, stack: ExitStack) -> None:
        from ganeum.step.optimizer_step import OptimizerStep

        loss_of, update = OptimizerStep._loss, OptimizerStep._update

        def watched_loss(step: OptimizerStep, batch: Any, targets: int) -> Tensor:
            inputs, model = dict(batch.inputs), step.model
            self.now.call = Call(model, model.hidden, (), inputs)
            self.place, self.now.in_training = 0, model.training
            share = loss_of(step, batch, targets)
            ids = batch.targets.detach().flatten().cpu()
            ids = torch.where(ids < 0, IGNORED, ids)
            counted = max(1, batch.counted)
            mean = float(share.detach()) / float(step.loss_scale) * targets / counted
            weights = (ids != IGNORED).float() / targets
            self.now.losses.append(Loss(ids, model.vocab_size, None, mean, weights=weights))
            self._beyond("logits", ids[ids != IGNORED], model.vocab_size)
            return share

        def watched_update(step: OptimizerStep, number: int, learning_rate: float, loss: Tensor) -> Tensor:
            parts = step.optimizer
            rates = {id(p): (learning_rate, 0.0) for p in getattr(parts, "parameters", step.parameters)}
            norm = self._gradients() / float(step.loss_scale)
            self._update(norm, step.train.grad_clip or None, rates)
            self.seen.scaled |= step.precision == "fp16"
            self.inside += 1
            try:
                return update(step, number, learning_rate, loss)
            finally:
                self.inside -= 1

        stack.enter_context(patch.object(OptimizerStep, "_loss", watched_loss))
        stack.enter_context(patch.object(OptimizerStep, "_update", watched_update))

    # ------------------------------------------------------------------------------------------- gradients, updates

    def _before_backward(self) -> None:
        there = self._norm(self._all()) > 0
        moved = self.pending and self.versions != self._versions()  # by nobody that is known: they were used by hand
        self.now.again = not self.first and (moved or self.asks or (not there and self._computed_before()))
        self.now.dropped = self.pending and not there and not self.within and not moved
        if not there:
            self.open = []
        self.first = False
        self.now.autocast = torch.is_autocast_enabled("cuda") or torch.is_autocast_enabled("cpu")
        self._let_go()
        grads = {id(p): p.grad for p in self.parameters.values() if p.grad is not None and id(p) in self.used}
        self.before = {key: (id(grad), grad._version) for key, grad in grads.items()}

    def _computed_before(self) -> bool:
        """Whether the backward pass before had the same ids."""
        here, before = self.now.embedded, self.seen.passes[-1].embedded if self.seen.passes else []
        return len(here) == len(before) > 0 and all(
            torch.equal(a.ids, b.ids) for a, b in zip(here, before, strict=True)
        )

    def _let_go(self) -> None:
        """Those that were cleared since: of two optimizers each may clear its own, just before it needs them."""
        there = {id(p) for p in self.parameters.values() if p.grad is not None and bool(p.grad.any())}
        self.used &= there
        self.mixed &= there

    def _after_backward(self) -> None:
        for parameter in self.parameters.values():
            grad = parameter.grad
            if grad is not None and (was := self.before.get(id(parameter))) and was != (id(grad), grad._version):
                self.mixed.add(id(parameter))
        self.now.norm = self._norm(self._all())
        self.pending, self.versions = self.now.norm > 0, self._versions()
        self.asks = self.within
        self.open.append(self.now)
        self.seen.passes.append(self.now)
        self.now, self.place = Pass(), 0

    def _stepping(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self.inside:
            return
        self.within, self.asks = True, False
        self.seen.rounding.before(optimizer)
        if self.open:
            self._held(optimizer)

    def _held(self, optimizer: torch.optim.Optimizer) -> None:
        held = {
            id(p): (rate_of(group), float(group.get("weight_decay") or 0.0))
            for group in optimizer.param_groups
            for p in group["params"]
        }
        norm, mine = self._gradients(), {id(p) for p in self.parameters.values()}
        others = (p for group in optimizer.param_groups for p in group["params"] if id(p) not in mine)
        copies = tuple(tuple(p.shape) for p in others if p.grad is not None)
        self._update(self.clip[0] if self.clip else norm, self.clip[1] if self.clip else None, held, copies)

    def _stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self.asks:  # only now are there gradients
            self._held(optimizer)
        self.seen.rounding.after()
        self.within = self.asks = False

    def _versions(self) -> int:
        return sum(p._version for p in self.parameters.values())

    def _update(
        self,
        norm: float,
        clip: float | None,
        held: dict[int, tuple[float, float]],
        copies: tuple[tuple[int, ...], ...] = (),
    ) -> None:
        self._let_go()
        for one in self.open:
            one.kept = bool(self.mixed & held.keys())
        self.mixed -= held.keys()
        self.used |= held.keys()
        early = self.early and clip is None
        self.seen.updates.append(Update(self.open, norm, clip, held, copies, self.clip_scale, early))
        self.open, self.clip, self.pending = [], None, False
        self.clip_scale, self.early = 1.0, False

    def _all(self) -> list[Tensor]:
        return [p.grad for p in self.parameters.values() if p.grad is not None]

    @staticmethod
    @torch.no_grad()
    def _norm(gradients: list[Tensor]) -> float:
        dense = [g for g in gradients if not g.is_sparse]
        return float(nn.utils.get_total_norm(dense)) if dense else 0.0

    @torch.no_grad()
    def _gradients(self) -> float:
        """Notes which parameters have one, and returns the norm of all."""
        order = ("none", "zero", "some", "bad")
        for name, parameter in self.parameters.items():
            said = "none"
            if parameter.grad is not None:
                size = float(parameter.grad.float().norm()) if not parameter.grad.is_sparse else 1.0
                said = "zero" if size == 0 else "some" if size < float("inf") else "bad"
            self.seen.gradients[name] = max(self.seen.gradients.get(name, "none"), said, key=order.index)
        return self._norm(self._all())


def _number(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> float | None:
    """What goes backward, where it is one number."""
    if not isinstance(tensors, Tensor) or tensors.numel() != 1:
        return None
    times = float(grad_tensors) if isinstance(grad_tensors, Tensor) else 1.0
    return times * float(tensors.detach())


def _are_probabilities(rows: Tensor) -> bool:
    """Whether no number of any row (N, V) is below 0, and each row adds up to 1."""
    if not len(rows) or rows.shape[1] < 2 or bool((rows < 0).any()):
        return False
    return bool(((rows.sum(-1) - 1).abs() < ROUNDING).all())


def _counts_up(ids: Tensor) -> bool:
    """Whether they are places in a row, and no text."""
    last = ids.reshape(-1, ids.shape[-1])[0]
    return bool(((last[1:] - last[:-1]) == 1).all())
