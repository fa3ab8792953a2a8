"""A step without its numbers: tensors that have a size and nothing else, made and freed as torch makes and frees them.

A model is written down a second time as the operations that run (``ours.py``, ``transformers.py``). Each takes memory
for its result, keeps for the backward pass what torch's own kernel keeps, and is gone through backwards in the opposite
order, where it takes memory for gradients and lets go of what it kept. A tensor lives as long as Python holds it, as
torch's does, so what is there at any moment comes out by itself. :class:`Ledger` keeps the books: how much, of what,
and when it was most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial


@dataclass
class Ledger:
    """Bytes that are there now, part by part, and what was there at the fullest moment so far."""

    parts: dict[str, float] = field(default_factory=dict)
    now: float = 0.0
    most: float = 0.0
    fullest: dict[str, float] = field(default_factory=dict)
    at: str = ""
    moment: str = "start"  # what the step is doing
    watching: bool = True
    rising: bool = False

    def take(self, part: str, size: float) -> None:
        self.parts[part] = self.parts.get(part, 0.0) + size
        self.now += size
        if self.now > self.most and self.watching:
            self.most, self.at, self.rising = self.now, self.moment, True

    def give(self, part: str, size: float) -> None:
        if self.rising:  # the fullest moment ends here
            self.fullest, self.rising = dict(self.parts), False
        self.parts[part] -= size
        self.now -= size


class Tensor:
    """``numbers`` of ``wide`` bytes each, which count under ``part`` as long as anybody holds them."""

    __slots__ = ("base", "gradient", "ledger", "numbers", "part", "size", "wide")

    def __init__(
        self, ledger: Ledger, part: str, numbers: float, wide: float, times: int, base: Tensor | None = None
    ) -> None:
        self.ledger, self.part, self.numbers, self.wide = ledger, part, numbers, wide
        self.size = numbers * wide * times
        self.base = base  # whose memory it looks at, where it has none of its own
        self.gradient: Gradient | None = None
        ledger.take(part, self.size)

    def __del__(self) -> None:
        self.ledger.give(self.part, self.size)


class Gradient:
    """Where the gradient of a tensor arrives, which may long be gone; from several sides it is summed in place."""

    __slots__ = ("numbers", "tensor", "wide")

    def __init__(self, numbers: float, wide: float) -> None:
        self.numbers, self.wide = numbers, wide
        self.tensor: Tensor | None = None

    def add(self, tensor: Tensor | None) -> None:
        self.tensor = self.tensor or tensor

    def taken(self) -> Tensor | None:
        tensor, self.tensor = self.tensor, None
        return tensor


class Tape:
    """What was computed forward, to be gone through backwards.

    Attributes:
        recording: whether operations keep anything; not in evaluation, nor where they will be computed again.
        accumulating: whether the weights' gradients are added to those of earlier micro-batches.
        widens: whether a sum of two formats copies the narrower one, as on a CPU.
    """

    def __init__(self, ledger: Ledger, *, recording: bool, accumulating: bool, widens: bool = True) -> None:
        self.ledger, self.recording, self.accumulating, self.widens = ledger, recording, accumulating, widens
        self.recorded: list[Callable[[], None]] = []
        self.gradients: list[Tensor] = []  # of the weights
        self.copies: list[Tensor] = []  # autocast's, until the forward pass ends
        self.times = 1

    def tensor(self, part: str, numbers: float, wide: float) -> Tensor:
        """A new one that nothing is differentiated by."""
        return Tensor(self.ledger, part, numbers, wide, self.times)

    def apply(
        self,
        part: str,
        numbers: float,
        wide: float,
        inputs: Iterable[Tensor],
        *,
        keeps: Sequence[Tensor | None] = (),
        keeps_result: bool = False,
        extra: float = 0.0,
        forward_extra: float = 0.0,
    ) -> Tensor:
        """An operation: its result, which keeps ``keeps`` for its backward pass.

        Args:
            inputs: what it is computed from; each gets a gradient of its own size.
            extra: bytes that its backward pass needs on the way.
            forward_extra: bytes that it needs on the way itself.
        """
        out = self.tensor(part, numbers, wide)
        if forward_extra:
            self.tensor("workspace", forward_extra, 1)
        into = [x.gradient for x in inputs if x.gradient]
        if self.recording and into:
            out.gradient = arrived = Gradient(numbers, wide)
            keeps = (*keeps, out) if keeps_result else keeps

            def backward(kept: Sequence[Tensor | None] = keeps) -> None:
                d, work = arrived.taken(), self.tensor("workspace", extra, 1)
                new = [self.tensor("workspace", to.numbers, to.wide) for to in into]
                del d, work
                for to in into:
                    to.add(new.pop(0))

            self.recorded.append(backward)
        return out

    def add(self, part: str, a: Tensor, b: Tensor) -> Tensor:
        """a + b, in the wider of both formats; its gradient is both's, for the narrower one in its own format. A CPU
        widens the narrower one before, CUDA's kernels read it as it is."""
        wide = max(a.wide, b.wide)
        widened = [self.tensor(part, x.numbers, wide) for x in (a, b) if x.wide < wide and self.widens]
        out = self.tensor(part, a.numbers, wide)
        del widened
        into = [x.gradient for x in (a, b) if x.gradient]
        if self.recording and into:
            out.gradient = arrived = Gradient(a.numbers, wide)

            def backward() -> None:
                d = arrived.taken()
                for to in into:
                    to.add(d if to.wide == wide else self.tensor("workspace", to.numbers, to.wide))

            self.recorded.append(backward)
        return out

    def split(self, x: Tensor, numbers: Sequence[float]) -> list[Tensor]:
        """Views that share x's memory, and whose gradients are put side by side in a new one."""
        views = [Tensor(self.ledger, x.part, n, x.wide, 0, x) for n in numbers]
        into = x.gradient
        if self.recording and into:
            arrived = [Gradient(n, x.wide) for n in numbers]
            for view, gradient in zip(views, arrived, strict=True):
                view.gradient = gradient

            def backward() -> None:
                parts, d = [gradient.taken() for gradient in arrived], self.tensor("workspace", into.numbers, into.wide)
                del parts
                into.add(d)

            self.recorded.append(backward)
        return views

    def cast(self, x: Tensor, wide: float) -> Tensor:
        """``x`` in another format; itself where it has that already."""
        return x if x.wide == wide else self.apply(x.part, x.numbers, wide, [x])

    def product(
        self, part: str, x: Tensor, weights: float, numbers: float, wide: float, *, held: float, trained: bool = True
    ) -> Tensor:
        """A matrix of ``weights`` numbers, ``held`` bytes each, times ``x``, in numbers of ``wide`` bytes.

        Where the weights are wider than that, autocast makes a copy, once for all of a forward pass.
        """
        copy, copied = None, None
        if wide < held:
            copy = self.tensor("copies", weights, wide)
            if trained:
                self.copies.append(copy)
            if trained and self.recording:
                copied = self._copied(weights, wide, held)
        x = self.cast(x, wide)
        out, into = self.tensor(part, numbers, wide), x.gradient
        if self.recording and (trained or into):
            out.gradient = arrived = Gradient(numbers, wide)
            kept = (x if trained else None, copy if into else None)

            def backward(kept: Sequence[Tensor | None] = kept) -> None:
                d = arrived.taken()
                d_w = self.tensor("workspace" if copied else "gradients", weights, wide) if trained else None
                d_x = self.tensor("workspace", into.numbers, into.wide) if into else None
                del d
                if copied:
                    copied.add(d_w)
                elif d_w:
                    self.weight_gradient(d_w)
                if into:
                    into.add(d_x)

            self.recorded.append(backward)
        return out

    def _copied(self, weights: float, wide: float, held: float) -> Gradient:
        arrived = Gradient(weights, wide)

        def backward() -> None:
            d = arrived.taken()
            self.weight_gradient(self.tensor("gradients", weights, held))
            del d

        self.recorded.append(backward)
        return arrived

    def weight_gradient(self, new: Tensor) -> None:
        """Keeps it, or adds it to the one of earlier micro-batches."""
        if not self.accumulating:
            self.gradients.append(new)

    def again(self, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """``part(x)``, of which only ``x`` is kept: the backward pass computes it again."""
        if not self.recording:
            return part(x)
        self.recording = False
        out = part(x)
        self.recording = True
        out.gradient = arrived = Gradient(out.numbers, out.wide)

        def backward(x: Tensor = x) -> None:
            before, self.recorded = self.recorded, []
            copies, self.copies = self.copies, []
            result = part(x)
            assert result.gradient
            result.gradient.add(arrived.taken())
            self.copies = copies
            del result
            self.backward()
            self.recorded = before

        self.recorded.append(backward)
        return out

    def layers(self, count: int, layer: Callable[[Tensor], Tensor], x: Tensor, *, seen: int = 1) -> Tensor:
        """``count`` equal ones. The first ``seen`` and the last are gone through; those between count at once and
        unseen, for of equal moments in a row the first or the last is the fullest."""
        for number in range(min(seen, count)):
            x = layer(x)
            self.next_moment(f"backward of the {'second' if number else 'first'} layer")
        if count > seen + 1:
            with self._at_once(count - seen - 1, x.gradient):
                x = layer(x)
            if not self.recording:  # then only the last of them is there
                x = self.tensor(x.part, x.numbers, x.wide)
        if count > seen:
            x = layer(x)
            self.next_moment("backward of the last layer")
        return x

    def next_moment(self, name: str) -> None:
        """What the backward pass of everything recorded before is called, back to the next name."""
        if self.recording:
            self.recorded.append(partial(setattr, self.ledger, "moment", name))

    @contextmanager
    def _at_once(self, times: int, first: Gradient | None) -> Iterator[None]:
        def leave() -> None:
            self.times, self.ledger.watching = 1, True
            if first and first.taken():
                first.add(self.tensor("workspace", first.numbers, first.wide))

        def enter() -> None:
            self.times, self.ledger.watching = times, False

        self.recorded.append(leave)  # the backward pass comes from the other side
        enter()
        yield
        self.times, self.ledger.watching = 1, True
        self.recorded.append(enter)

    def backward(self) -> None:
        """Goes back through everything recorded."""
        while self.recorded:
            self.recorded.pop()()
