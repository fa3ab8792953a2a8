"""The tape on which a model's operations are recorded, with weights that have names and gradients that add up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ganeum.plan.memory.replay import Gradient, Ledger, Tape, Tensor


class Learnt(Gradient):
    """A weight's gradient: complete when every use has added to it, and then one with that of earlier micro-batches."""

    __slots__ = ("kept", "stays", "turned", "uses")

    def __init__(self, numbers: float, wide: float, stays: float = 1.0) -> None:
        super().__init__(numbers, wide)
        self.kept: Tensor | None = None
        self.stays = stays  # share of it that this device keeps: ZeRO spreads it over devices, or sends it to the CPU
        self.turned = False  # whether a matrix product made it: a view, to which torch adds in a new tensor
        self.uses = 0

    def add(self, tensor: Tensor | None) -> None:
        if self.tensor and self.turned:
            self.tensor = Tensor(self.tensor.ledger, self.tensor.part, self.numbers, self.wide, 1)
            self.turned = False
        super().add(tensor)
        self.uses -= 1
        if not self.uses:
            if self.tensor and self.stays < 1:
                self.kept = self.kept or Tensor(self.tensor.ledger, "gradients", self.tensor.size * self.stays, 1.0, 1)
                self.tensor = None
            self.kept, self.tensor = self.kept or self.tensor, None


class Graph(Tape):
    """A tape on which weights have names: one that is used twice gets one gradient."""

    def __init__(self, ledger: Ledger, *, recording: bool, gradients_stay: float = 1.0) -> None:
        super().__init__(ledger, recording=recording, accumulating=False)
        self.weights: dict[str, Tensor] = {}
        self.gradients_stay = gradients_stay
        self.part = "embedding"

    @contextmanager
    def counted_as(self, part: str) -> Iterator[None]:
        """What is kept meanwhile is of this part."""
        before, self.part = self.part, part
        yield
        self.part = before

    def weight(self, name: str, numbers: float, wide: float, *, frozen: bool = False) -> Tensor:
        """A parameter; its own bytes are counted with the state (state.py)."""
        if name not in self.weights:
            self.weights[name] = weight = Tensor(self.ledger, "weights", numbers, wide, 0)
            weight.gradient = None if frozen else Learnt(numbers, wide, self.gradients_stay)
        return self.weights[name]

    def operation(
        self,
        inputs: Sequence[Tensor],
        numbers: float,
        wide: float,
        *,
        saved: Sequence[Tensor | None] = (),
        keeps_output: bool = False,
        temporary: float = 0.0,
        before: float = 0.0,
    ) -> Tensor:
        """One operation.

        Args:
            inputs: of which a gradient is wanted where something is learnt behind them.
            numbers: of the output, ``wide`` bytes each.
            saved: what its gradient needs; ``keeps_output``: the output too.
            temporary: bytes that the gradient needs on the way; ``before``: that the operation does.
        """
        on_the_way = self.tensor("workspace", before, 1.0)
        out = self.tensor(self.part, numbers, wide)
        del on_the_way
        return self.recorded_as(out, inputs, (*saved, out) if keeps_output else saved, temporary)

    def recorded_as(
        self,
        out: Tensor,
        inputs: Sequence[Tensor],
        saved: Sequence[Tensor | None],
        temporary: float = 0.0,
        same: bool = False,
    ) -> Tensor:
        """``out`` with its way back; ``same``: inputs as large as ``out`` get its very gradient."""
        into = [x.gradient for x in inputs if x.gradient]
        if not self.recording or not into:
            return out
        arrived, moment = Gradient(out.numbers, out.wide), f"backward of {self.ledger.moment.split(' of ')[-1]}"
        for to in into:
            if isinstance(to, Learnt):
                to.uses += 1

        def backward(saved: Sequence[Tensor | None] = saved) -> None:
            self.ledger.moment = moment
            d = arrived.taken()
            on_the_way = self.tensor("workspace", temporary, 1.0)
            new = [
                d if same and (to.numbers, to.wide) == (arrived.numbers, arrived.wide) else self._empty(to)
                for to in into
            ]
            del d, on_the_way
            for to in into:
                to.add(new.pop(0))

        out.gradient = arrived
        self.recorded.append(backward)
        return out

    def until_the_end(self, tensor: Tensor) -> None:
        """Holds ``tensor`` until the whole backward pass is over."""
        self.recorded.insert(0, lambda tensor=tensor: None)  # type: ignore[misc]

    def _empty(self, gradient: Gradient) -> Tensor:
        part = "gradients" if isinstance(gradient, Learnt) else "workspace"
        return self.tensor(part, gradient.numbers, gradient.wide)
