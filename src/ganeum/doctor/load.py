"""Keeps a GPU busy with products of matrices until it is told to end: python -m ganeum.doctor.load INDEX SECONDS."""

from __future__ import annotations

import sys
import time
from threading import Event, Thread

SIDE = 4096  # of the matrices: 137 GFLOP a product
AT_ONCE = 20  # products between two looks at the clock


def main(index: int, seconds: float) -> None:
    """Multiplies on the card ``index``; ends after so long, or when whoever started it does."""
    import torch

    orphan = Event()
    Thread(target=_wait, args=(orphan,), daemon=True).start()
    device = torch.device("cuda", index)
    dtype = torch.bfloat16 if torch.cuda.get_device_capability(index) >= (8, 0) else torch.float16
    left = torch.randn(SIDE, SIDE, device=device, dtype=dtype)
    out = torch.empty_like(left)
    end = time.monotonic() + seconds
    while time.monotonic() < end and not orphan.is_set():
        for _ in range(AT_ONCE):
            torch.matmul(left, left, out=out)
        torch.cuda.synchronize(device)


def _wait(orphan: Event) -> None:
    """Standard input ends with whoever holds its other end."""
    sys.stdin.read()
    orphan.set()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
