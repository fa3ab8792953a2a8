"""Whether torch.compile pays: what it costs at the start against what it saves on every step. Plans ask it, too."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Literal

from ganeum.hardware.device import Device
from ganeum.units import duration

# On a GPU: seconds to compile forward and backward of a GPT (its blocks are traced one by one), and the share of a step
# that fusing saves. nanoGPT's README gives 250 → 135 ms (46 %) without fused attention; fused attention and the chunked
# loss, which this project has anyway, leave about half of that. benchmarks/gpu.sh measures both on the GPU at hand.
COMPILE_S, SAVED_SHARE = 60.0, 0.25


def choose(
    requested: bool | Literal["auto"], *, steps: int | None, step_s_estimate: float | None, device: Device
) -> tuple[bool, str]:
    """Whether to compile, and the reason in words, with its figures.

    Args:
        requested: the config's value; anything but ``auto`` is obeyed.
        steps: optimizer steps of the run; None where nothing is known.
        step_s_estimate: seconds of one step uncompiled; None where nothing is known.
        device: where the training runs. Of one that is not here, it is taken that nothing is missing there.
    """
    if requested != "auto":
        return requested, "as configured"
    if device.kind == "cpu":
        return False, (
            "on a CPU it saves nothing: attention and loss are written out already, and what is left is matrix "
            "products (compiled 0.97 to 1.01 times as fast, measured)"
        )
    if device.kind != "cuda":
        return False, f"not measured on {device.kind}"
    missing = missing_for_cuda(device)
    if missing:
        return False, f"torch.compile needs {missing} here"
    if steps is None or step_s_estimate is None:
        return False, "the length of the run is not known"
    saved_s = steps * step_s_estimate * SAVED_SHARE
    figures = (
        f"{steps:,} steps of about {step_s_estimate * 1e3:,.0f} ms: compiling takes about {duration(COMPILE_S)} "
        f"and saves about {SAVED_SHARE:.0%} of each step, {duration(saved_s)} in all"
    )
    return saved_s > COMPILE_S, figures


def missing_for_cuda(device: Device) -> str | None:
    """What torch.compile lacks to make GPU kernels, or None."""
    if (device.capability or (7, 0)) < (7, 0):
        return "a GPU of compute capability 7.0 or later"
    if not device.here:
        return None
    if sys.platform == "win32":
        return "Linux (its kernels come from Triton)"
    if importlib.util.find_spec("triton") is None:
        return "the triton package"
    if not any(shutil.which(compiler) for compiler in ("cc", "gcc", "clang")):
        return "a C compiler (cc, gcc or clang)"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Python's header files (python3-dev)"
    return None
