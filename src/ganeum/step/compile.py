"""Whether torch.compile pays: what it saves over the whole run against what it costs at the start."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch


@dataclass(frozen=True)
class Worth:
    """What compiling does to a run on one kind of device: seconds it takes, and the share of each step it saves."""

    cost_s: float
    saved_share: float


# Measured on the CPU (see docs/log.md); for a GPU, cautious: the gain differs more between models than the cost.
WORTH = {"cpu": Worth(cost_s=60.0, saved_share=0.08), "cuda": Worth(cost_s=60.0, saved_share=0.2)}


def choose(
    requested: bool | Literal["auto"], *, steps: int, step_s_estimate: float | None, device: torch.device
) -> tuple[bool, str]:
    """Whether to compile, and why in words.

    Args:
        requested: the config's key; a user's own answer stands.
        steps: of the whole run.
        step_s_estimate: seconds of one step as it is, not compiled; None where nobody knows.
        device: what it runs on.
    """
    if requested != "auto":
        return requested, "as configured"
    if missing := lacking(device):
        return False, missing
    if step_s_estimate is None:
        return False, "how long a step takes on this device is not known, so neither is what it would save"
    worth = WORTH[device.type]
    saved_s = steps * step_s_estimate * worth.saved_share
    figures = (
        f"over {steps:,} steps of about {step_s_estimate:.2g} s it would save about {saved_s:,.0f} s "
        f"({worth.saved_share:.0%}), and it takes about {worth.cost_s:.0f} s"
    )
    return saved_s > 2 * worth.cost_s, figures


def lacking(device: torch.device) -> str | None:
    """What torch.compile needs and this machine does not have; None: nothing."""
    if device.type not in WORTH:
        return f"torch.compile is not used on {device.type}"
    if platform.system() == "Windows":
        return "torch.compile needs a compiler that Windows does not bring"
    if device.type == "cuda":
        return None if find_spec("triton") else "torch.compile needs triton on a GPU, and it is not installed"
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return "torch.compile needs a C++ compiler on a CPU, and there is none"
    return None
