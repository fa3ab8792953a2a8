"""Which rule moves which weight, and how an update is kept: left out where it is bad, rounded, its state elsewhere.

Plain AdamW is torch's fused one. Everything else is a rule (see rules.py) applied piece by piece, so that what is
computed on the way is never larger than one piece. The device decides whether an update counts; nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ganeum.config import sizes
from ganeum.config.schema import Train
from ganeum.models.network import Network
from ganeum.step import rounding
from ganeum.step.eight_bit import AdamW8bit
from ganeum.step.parametrization import scale
from ganeum.step.rules import SGD, Adafactor, AdamW, Muon, Pace, Rule, State

PIECE = 1 << 20  # weights that an element-wise rule takes at one time: 4 MiB in fp32; a multiple of 256
STACK = 1 << 22  # weights in one stack of matrices: an update holds nine numbers for each of them at one time


@dataclass(frozen=True)
class Weight:
    """A parameter, its learning rate as a multiple of the step's, and its weight decay."""

    name: str
    parameter: nn.Parameter
    rate: float
    decay: float


class Part(Protocol):
    """What moves some of a model's weights."""

    def step(self, learning_rate: float, divisor: Tensor, bad: Tensor) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Optimizer:
    """All weights of a model that are trained, each moved by what ``train.optimizer`` says.

    ``parts``: by name, ``adamw`` where torch's fused AdamW is at work.
    """

    def __init__(self, model: Network, train: Train, device: torch.device, matmul_dtype: torch.dtype) -> None:
        """
        Args:
            model: on its device, its weights all in fp32 or all in bf16.
            matmul_dtype: what matrix products are computed in; Muon has some.
        """
        weights = list(_weights(model, train))
        self.parameters = [weight.parameter for weight in weights]
        offload = train.optimizer_offload and device.type == "cuda"  # on a CPU it lies there already
        self.parts: dict[str, Part] = {}
        if train.optimizer == "muon":
            excluded = _embeddings(model)
            matrices = [w for w in weights if w.parameter.dim() == 2 and w.parameter not in excluded]
            self.parts["muon"] = Ruled(Muon(train.momentum, matmul_dtype), stacks(matrices, model), offload)
            moved = {w.name for w in matrices}
            weights = [w for w in weights if w.name not in moved]
        if train.optimizer in ("adamw", "muon") and weights:
            if train.weights == "fp32" and not offload:
                self.parts["adamw"] = FusedAdamW(weights, train)
            else:
                self.parts["adamw by pieces"] = Ruled(AdamW(train.beta1, train.beta2), pieces(weights), offload)
        elif train.optimizer == "adamw8bit":
            self.parts["adamw8bit"] = Ruled(AdamW8bit(train.beta1, train.beta2), pieces(weights), offload)
        elif train.optimizer == "sgd":
            self.parts["sgd"] = Ruled(SGD(train.momentum), pieces(weights), offload)
        elif train.optimizer == "adafactor":
            whole = [Piece(w.name, ((w.parameter, None),), w.rate, w.decay) for w in weights]
            self.parts["adafactor"] = ByRows(Adafactor(), whole, offload)

    @torch.no_grad()
    def step(self, learning_rate: float, divisor: Tensor, bad: Tensor) -> None:
        """Move every weight by its gradient.

        Args:
            divisor: () fp32 on the device; gradients are divided by it.
            bad: () bool on the device; where it is true, weights and state stay as they are, bit for bit.
        """
        for part in self.parts.values():
            part.step(learning_rate, divisor, bad)

    def zero_grad(self) -> None:
        """Forget the gradients, and their memory."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """By part; tensors, numbers and text only, not copied."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        if "param_groups" in state:  # of a run from before there were parts
            state = {"adamw": state}
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


class FusedAdamW:
    """torch's: it divides the gradients by ``grad_scale`` and does nothing where ``found_inf`` is 1."""

    def __init__(self, weights: list[Weight], train: Train) -> None:
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for weight in weights:
            groups.setdefault((weight.rate, weight.decay), []).append(weight.parameter)
        self.rates = [rate for rate, _ in groups]
        self.adamw = torch.optim.AdamW(
            [{"params": parameters, "weight_decay": decay} for (_, decay), parameters in groups.items()],
            lr=train.learning_rate,
            betas=(train.beta1, train.beta2),
            fused=True,
        )

    def step(self, learning_rate: float, divisor: Tensor, bad: Tensor) -> None:
        for group, rate in zip(self.adamw.param_groups, self.rates, strict=True):
            group["lr"] = learning_rate * rate
        self.adamw.grad_scale = divisor  # type: ignore[attr-defined]
        self.adamw.found_inf = bad.float()  # type: ignore[attr-defined]
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        return self.adamw.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adamw.load_state_dict(state)


@dataclass(frozen=True)
class Piece:
    """Equally shaped parts of weights that are moved together: whole parameters, some of their rows, or, where
    ``flat``, some of their elements."""

    name: str
    parts: tuple[tuple[nn.Parameter, slice | None], ...]
    rate: float
    decay: float
    flat: bool = False

    def of(self, parameter: Tensor, where: slice | None) -> Tensor:
        """The part of a parameter or of its gradient, as a view."""
        if self.flat:
            parameter = parameter.view(-1)
        return parameter if where is None else parameter[where]

    def weights(self) -> list[Tensor]:
        """The k parts, views into their parameters."""
        return [self.of(parameter.detach(), where) for parameter, where in self.parts]

    def gradient(self) -> Tensor:
        """(k, …) in fp32."""
        found = []
        for parameter, where in self.parts:
            assert parameter.grad is not None
            found.append(self.of(parameter.grad.contiguous(), where))
        return _stack(found)


class Ruled:
    """Weights moved by a rule, piece by piece.

    Weights in bf16 are computed with in fp32 and rounded stochastically. With ``offload`` the state lies in pinned
    memory of the CPU: a piece's is copied to the device and, updated, back again, in the order of the device's work,
    so nobody waits. Its cost is the bus: twice the state's bytes a step.
    """

    def __init__(self, rule: Rule, moved: list[Piece], offload: bool) -> None:
        self.rule, self.pieces, self.offload = rule, moved, offload
        device = moved[0].parts[0][0].device
        self.updates = torch.zeros((), device=device)
        self.state: dict[str, State] = {}
        for piece in moved:
            state = rule.start(_stack(piece.weights()))
            self.state[piece.name] = {k: v.cpu().pin_memory() for k, v in state.items()} if offload else state

    def step(self, learning_rate: float, divisor: Tensor, bad: Tensor) -> None:
        updates = self.updates + 1
        for piece in self.pieces:
            if all(parameter.grad is not None for parameter, _ in piece.parts):  # else nothing depends on it
                self._update(piece, Pace(learning_rate * piece.rate, piece.decay, updates), divisor, bad)
        self.updates.copy_(torch.where(bad, self.updates, updates))

    def _update(self, piece: Piece, pace: Pace, divisor: Tensor, bad: Tensor) -> None:
        """Of one piece; what it takes is given back before the next one's is taken."""
        kept = self.state[piece.name]
        state = {key: value.to(self.updates.device, non_blocking=True) for key, value in kept.items()}
        for key, value in self._move(piece, state, pace, divisor, bad).items():
            kept[key].copy_(torch.where(bad, state[key], value), non_blocking=True)

    def _move(self, piece: Piece, state: State, pace: Pace, divisor: Tensor, bad: Tensor) -> State:
        """Moves the weights → the new state."""
        weights = piece.weights()
        moved, new = self.rule(_stack(weights), piece.gradient() / divisor, state, pace)
        for weight, value in zip(weights, moved, strict=True):
            _put(weight, value, bad)
        return new

    def state_dict(self) -> dict[str, Any]:
        if self.offload:
            torch.cuda.synchronize(self.updates.device)  # copies may be under way
        return {"updates": self.updates.cpu(), "state": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates.copy_(state["updates"])
        for piece, kept in self.state.items():
            for key, value in kept.items():
                value.copy_(state["state"][piece][key])


class ByRows(Ruled):
    """Adafactor's, which looks at a matrix as a whole: one of more than ``PIECE`` numbers is gone through three times,
    so many of its rows at once."""

    rule: Adafactor

    def _move(self, piece: Piece, state: State, pace: Pace, divisor: Tensor, bad: Tensor) -> State:
        ((parameter, _),) = piece.parts
        if parameter.dim() != 2 or parameter.numel() <= PIECE:
            return super()._move(piece, state, pace, divisor, bad)
        weight, gradient = parameter.detach(), parameter.grad
        assert gradient is not None
        rows = max(1, PIECE // weight.size(1))
        some = list(zip(torch.split(weight, rows), torch.split(gradient, rows), strict=True))
        moved, new = self.rule.by_rows(
            [lambda w=w, g=g: (_stack([w]), _stack([g]) / divisor) for w, g in some],  # type: ignore[misc]
            state,
            pace,
        )
        for (part, _), value in zip(some, moved, strict=True):
            _put(part, value[0], bad)
        return new


def _put(weight: Tensor, value: Tensor, bad: Tensor) -> None:
    """The new value in fp32, unless the update is bad."""
    rounded = rounding.stochastic(value) if weight.dtype == torch.bfloat16 else value
    weight.copy_(torch.where(bad, weight, rounded))


def pieces(weights: list[Weight]) -> list[Piece]:
    """Runs of at most ``PIECE`` elements, for rules that take each for itself."""
    return [
        Piece(f"{w.name}[{start}:]", ((w.parameter, slice(start, start + PIECE)),), w.rate, w.decay, flat=True)
        for w in weights
        for start in range(0, w.parameter.numel(), PIECE)
    ]


def stacks(weights: list[Weight], model: Network) -> list[Piece]:
    """Matrices of one shape together. Queries, keys and values are matrices of their own, though they lie in one:
    orthogonal as a whole, they would share one set of directions."""
    alike: dict[tuple[Any, ...], list[tuple[nn.Parameter, slice | None]]] = {}
    for weight in weights:
        rows: list[slice | None] = [None]
        if weight.name.endswith(("attention.qkv.weight", "attention.qkv.lora_B.default.weight")):
            rows = _consecutive(sizes.qkv_widths(model.config))
        for part in rows:
            height = weight.parameter.size(0) if part is None else part.stop - part.start
            alike.setdefault((height, weight.parameter.size(1), weight.rate, weight.decay), []).append(
                (weight.parameter, part)
            )
    found = []
    for (height, width, rate, decay), parts in alike.items():
        each = max(1, STACK // (height * width))
        for start in range(0, len(parts), each):
            name = f"{height} x {width}, rate {rate:g} [{start}:]"
            found.append(Piece(name, tuple(parts[start : start + each]), rate, decay))
    return found


def _consecutive(lengths: tuple[int, ...]) -> list[slice | None]:
    """3, 2, 2 → 0:3, 3:5, 5:7."""
    ends = [sum(lengths[: n + 1]) for n in range(len(lengths))]
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def _weights(model: Network, train: Train) -> Iterator[Weight]:
    """What is trained. Weight decay is on matrices and embeddings (two dimensions), not on biases and norms, as GPT-3
    did (Brown et al. 2020, appendix B)."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            multiple = scale(name, tuple(parameter.shape), model.config, train)
            decay = train.weight_decay * multiple.decay if parameter.dim() >= 2 else 0.0
            yield Weight(name, parameter, multiple.rate, decay)


def _embeddings(model: Network) -> set[Tensor]:
    """What is looked up or compared row by row, where a row is one token: Muon's directions mean nothing there."""
    looked_up: set[Tensor] = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    head = getattr(model.head, "weight", None)
    return looked_up if head is None else looked_up | {head}


def _stack(tensors: list[Tensor]) -> Tensor:
    """k times (…) → (k, …) in fp32; a single one is not copied."""
    return (tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)).float()
