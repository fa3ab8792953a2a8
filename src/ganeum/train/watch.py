"""The watch over the GPU: a thread that looks at it while it trains, and writes logs/system.jsonl.

It must never disturb what it looks at. The training's own thread never calls NVML; a driver that fails or never
answers costs the run its watch and one line that says so, and nothing else. NVML's calls let go of Python's lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ganeum.hardware.sensors import Sensors
from ganeum.record import MetricsLog, read_metrics
from ganeum.train.callbacks import Callback, Training
from ganeum.train.throttling import throttling

HANG_S = 30.0  # a look takes milliseconds; one that takes this long will not come back
FAREWELL_S = 2.0  # how long the end of a run waits for a look that is under way
LINES = 20_000  # so many at the interval that was asked for, then fewer: the file grows with the logarithm of time


class Watch(Callback):
    """Looks every `interval_s` at the card with one of `addresses` (see `Sensors`), into `logs/system.jsonl`.

    A line: time (seconds since 1970), elapsed_s (the clock of metrics.jsonl), step (updates completed), read_ms (how
    long the look took), and the figures of `Sensors.read`. Lines are written and not flushed to the disk. From
    `LINES` intervals on, the next look comes after a `LINES`th of the time so far: a week at 1 s takes 88,000 lines.

    Args:
        say: tells the reader; called from the training's thread only.
    """

    def __init__(self, addresses: Sequence[str], interval_s: float, say: Callable[[str], None]) -> None:
        self._addresses, self._interval_s, self._say = addresses, interval_s, say
        self._over = threading.Event()
        self._trouble: str | None = None
        self._said = False

    def on_start(self, training: Training) -> None:
        self._run, self._step = training.run, training.step
        self._began = time.monotonic() - training.elapsed_s
        self._looked = time.monotonic()
        self._thread = threading.Thread(target=self._watch, args=(training.step,), name="gpu-watch", daemon=True)
        self._thread.start()

    def on_step(self, step: int) -> None:
        self._step = step

    def on_log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._trouble is None and time.monotonic() - self._looked > self._pause_s() + HANG_S:
            self._trouble = f"the driver has not answered for {HANG_S:.0f} s"
        self._say_trouble()

    def on_end(self, summary: dict[str, Any] | None) -> None:
        """Adds `gpu`, what held the clocks down for how long, where there is something to say (see `throttling`)."""
        self._over.set()
        self._thread.join(FAREWELL_S)
        if self._thread.is_alive():
            self._trouble = self._trouble or "the driver does not answer"
        self._say_trouble()
        if summary is not None and (found := throttling(read_metrics(self._run.system_path))) is not None:
            summary["gpu"] = found

    def _say_trouble(self) -> None:
        if self._trouble is not None and not self._said:
            self._said = True
            self._say(f"The GPU is not watched any more ({self._run.system_path.name}): {self._trouble}")

    # ------------------------------------------------------------------------------------------- in its own thread

    def _watch(self, after_step: int) -> None:
        try:
            with Sensors(self._addresses) as sensors, MetricsLog(self._run.system_path, after_step) as log:
                while not self._over.wait(self._pause_s()):
                    began = time.monotonic()
                    figures = sensors.read()
                    self._looked = time.monotonic()
                    if self._over.is_set():  # it came back after the run had gone on without it
                        return
                    log.write(
                        {
                            "time": time.time(),
                            "elapsed_s": self._looked - self._began,
                            "step": self._step,
                            "read_ms": (self._looked - began) * 1000,
                            **figures,
                        }
                    )
        except Exception as error:  # the driver's, or a full disk's: neither is worth a training
            self._trouble = str(error)

    def _pause_s(self) -> float:
        return max(self._interval_s, (time.monotonic() - self._began) / LINES)


def gpu_watch(device: str, interval_s: float, say: Callable[[str], None]) -> Watch | None:
    """The watch over torch's `device`; None where it is no NVIDIA GPU, or the user wants none (`interval_s` 0)."""
    import torch

    if interval_s == 0 or torch.device(device).type != "cuda" or torch.version.cuda is None:
        return None
    return Watch(addresses(torch.cuda.get_device_properties(device)), interval_s, say)


def addresses(properties: Any) -> list[str]:
    """What NVML may call the card that torch describes so. CUDA_VISIBLE_DEVICES renumbers torch's cards and not NVML's,
    so it is never the number."""
    found = []
    if hasattr(properties, "uuid"):
        found += [f"GPU-{properties.uuid}", f"MIG-{properties.uuid}"]
    if hasattr(properties, "pci_bus_id"):
        domain, bus, slot = properties.pci_domain_id, properties.pci_bus_id, properties.pci_device_id
        found.append(f"{domain:08X}:{bus:02X}:{slot:02X}.0")
    return found
