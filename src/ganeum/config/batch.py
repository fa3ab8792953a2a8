"""How a batch is divided: batch_size = micro_batch_size × gradient_accumulation_steps, always without a remainder."""

from __future__ import annotations

from ganeum.errors import ConfigError


def divisors(number: int) -> list[int]:
    """All divisors in rising order: 12 → [1, 2, 3, 4, 6, 12]."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


def accumulation_steps(batch_size: int, micro_batch_size: int, *, where: str | None = None) -> int:
    """The micro-batches in one optimizer step: 480, 6 → 80.

    Raises:
        ConfigError: `micro_batch_size` does not divide `batch_size`; the nearest ones that do are suggested.
    """
    steps, left = divmod(batch_size, micro_batch_size)
    if left == 0:
        return steps
    every = divisors(batch_size)
    near = [d for d in every if d < micro_batch_size][-1:] + [d for d in every if d > micro_batch_size][:1]
    first, *others = near
    raise ConfigError(
        "train.batch_size must be a multiple of train.micro_batch_size, "
        f"but {batch_size} is not a multiple of {micro_batch_size}",
        where=where,
        why="an optimizer step cannot end inside a micro-batch",
        suggestion=f"train.micro_batch_size: {first} ({_steps(batch_size // first)})"
        + "".join(f" or {d} ({batch_size // d})" for d in others),
    )


def _steps(count: int) -> str:
    return f"{count} accumulation step" + ("s" if count != 1 else "")
