"""How many rows are written at once: as many as the plan says fit, fewer where memory runs out all the same."""

from __future__ import annotations

from ganeum.hardware.device import Device, Kind
from ganeum.inference.decoding import Decoding
from ganeum.inference.writer import Writer

# Hypotheses at once: beyond that a step takes as much longer as it has more rows, and all wait for the longest text.
MOST: dict[Kind, int] = {"cpu": 32, "cuda": 256, "mps": 64}
UNPLANNED = 8  # rows at once where the model's parts are not known; memory that runs out halves them


class Sizes:
    """Rows at once, by the length of the longest prompt among them.

    Args:
        fixed: what the user said; None: by the plan.
    """

    def __init__(self, writer: Writer, decoding: Decoding, device: Device, fixed: int | None = None) -> None:
        self._writer, self._decoding, self._device, self._fixed = writer, decoding, device, fixed
        self._most = fixed or max(1, MOST[device.kind] // decoding.num_beams)

    def of(self, prompt: int) -> int:
        """The most rows whose prompts have so many tokens; one, where the plan says that not even one fits."""
        if self._fixed is not None:
            return self._most
        size = self._most
        while size > 1:
            needed = self._writer.needed(size, prompt, self._decoding)
            if needed is None:
                return min(size, UNPLANNED)
            if needed.fits(self._device):
                break
            size //= 2
        return size

    def ran_out(self, size: int) -> int:
        """Memory ran out with so many: from here on half of them, and no more."""
        self._most = max(1, size // 2)
        return self._most
