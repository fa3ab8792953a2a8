"""What each suspect could cost a step at the very most: bytes over the slowest link, work at the slowest rate.

The rates are deliberately poor ones, so that what is ruled out stays ruled out on any machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ganeum import units
from ganeum.doctor.log.expected import Expected

LINK_BYTES_S = 0.8e9  # PCIe generation 1 with four lanes, which a sleeping link is
DISK_BYTES_S = 20e6  # a bad network mount
TOKENISED_S = 50_000.0  # tokens a second, of a tokenizer in Python on one core; those in Rust do ten times as many
SYNC_S = 2e-3  # a wait for the GPU and what it costs to queue anew, for each of a few a step
ID_BYTES = 8  # of a token's number, as int64
NOTHING = 0.05  # of a step's time: a suspect that cannot cost more is ruled out


@dataclass(frozen=True)
class Suspect:
    """A cause, what it could cost a step at the most, in seconds, and how that is reckoned."""

    cause: str
    what: str
    most_s: float
    how: str

    def sentence(self, step_s: float) -> str:
        """It, ruled out."""
        share = self.most_s / step_s
        shown = f"{share:.2g} of a step" if share < 0.0001 else f"{share:.2%} of a step"
        return f"{self.what}: {self.how}, at most {units.duration(self.most_s)}, {shown}"


def suspects(expected: Expected, sequences: int, length: int) -> Iterator[Suspect]:
    """All that can be reckoned of a step of ``sequences`` × ``length`` tokens."""
    tokens = sequences * length
    moved = 2 * tokens * ID_BYTES
    if expected.fast["device"]["kind"] != "cpu":
        yield Suspect(
            "loader",
            "copying the batch to the GPU (pin_memory, non_blocking)",
            moved / LINK_BYTES_S,
            f"inputs and labels are {moved / 2 / 1e3:.0f} KB of token ids each, over the slowest PCIe link",
        )
    yield Suspect(
        "slow_disk",
        "reading the text",
        moved / DISK_BYTES_S,
        f"as many bytes, {units.size(moved)}, from a disk of 20 MB/s",
    )
    yield Suspect(
        "loader", "tokenising in the loop", tokens / TOKENISED_S, f"{tokens:,} tokens at 50,000 a second on one core"
    )
    yield Suspect("sync", "reading the loss in every step (.item(), print)", SYNC_S, "a wait costs its own start anew")
    plain, fast = expected.plain.get("time", {}), expected.fast.get("time", {})
    if expected.cards == 1 and "step_s" in plain and "step_s" in fast:
        name = expected.fast["device"]["name"]
        yield Suspect(
            "fp32",
            "number format, TF32, compiling, fused attention and a fused optimizer, all of them together",
            plain["high"] - fast["low"],
            f"{name} needs {units.duration(fast['low'])} with and {units.duration(plain['high'])} without them",
        )
    elif "high" in plain:
        yield Suspect(
            "fp32",
            "number format, TF32, compiling, fused attention and a fused optimizer, all of them together",
            plain["high"],
            f"in fp32 and without any of them the slowest card that it fits on "
            f"({expected.plain['device']['name']}) needs {units.duration(plain['high'])}",
        )
    parts: Mapping[str, Any] = plain.get("by_part", {})
    if "attention" in parts:
        yield Suspect(
            "eager_attention",
            "attention that is not fused",
            4 * parts["attention"],
            f"attention over {length:,} tokens is {parts['attention'] / plain['step_s']:.1%} of the work; thrice more",
        )
