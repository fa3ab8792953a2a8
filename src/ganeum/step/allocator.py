"""How memory is asked for: the C library keeps what a step has freed, CUDA's allocator grows its blocks.

glibc gives blocks of megabytes back to the system at once, and every step faults them in again, page by page: a fifth
of a CPU step's time. Training asks for the same sizes over and over, so keeping them costs no more than its peak.

CUDA's allocator takes blocks of fixed size from the driver and cuts them up; pieces that fit nothing are lost (reserved
but not allocated). With expandable segments a block grows at its end instead, through the driver's virtual memory.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Literal

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> str | None:
    """Turn off trimming and mmap-ed blocks in glibc's malloc, for this process, from now on.

    Returns:
        What was done, in words, or None where it does not apply: another system, another C library (musl), or
        another allocator preloaded, whose own settings hold.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return None
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not (mallopt(M_TRIM_THRESHOLD, -1) and mallopt(M_MMAP_MAX, 0)):
        return None
    return "glibc's malloc keeps freed memory (mallopt: no trimming, no mmap)"


# Where users set the allocator themselves: the name of torch 2.9 and later, and the older one, which it still reads.
VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
TEGRA = Path("/etc/nv_tegra_release")


def choose_expandable_segments(requested: bool | Literal["auto"], device: torch.device | str) -> tuple[bool, str]:
    """Whether CUDA's allocator grows its blocks, and the reason in words.

    What the user set in the environment holds, whatever the config says: torch reads such settings as a whole, and to
    set one of them would throw away the others.

    ``auto`` is true on Linux with an NVIDIA GPU, but not under WSL, where the first allocation can fail with an unknown
    driver error (pytorch issue 192330), and not on a Jetson, where the same calls report a full memory. torch builds
    for Windows and ROCm have no such allocator, or a young one.
    """
    if torch.device(device).type != "cuda":
        return False, "only CUDA's allocator has them"
    if (found := environment()) is not None:
        name, value = found
        return "expandable_segments:true" in value.lower().replace(" ", ""), f"{name}={value} is set"
    if requested != "auto":
        return requested, "as configured"
    if obstacle := _obstacle():
        return False, obstacle
    return True, "fewer holes between tensors of changing sizes, at no cost"


def expand_segments(value: bool) -> None:
    """Tell CUDA's allocator, for the blocks that it takes from now on. Nothing where the environment says how."""
    if environment() is None:
        later = getattr(torch._C, "_accelerator_setAllocatorSettings", None)  # by now for every accelerator
        (later or torch.cuda.memory._set_allocator_settings)(f"expandable_segments:{value}")


def environment() -> tuple[str, str] | None:
    """The variable with which the user sets the allocator himself, and its value; None where there is none."""
    given = ((name, os.environ.get(name)) for name in VARIABLES)
    return next(((name, value) for name, value in given if value), None)


def _obstacle() -> str | None:
    if not sys.platform.startswith("linux"):
        return f"torch has them on Linux, not on {platform.system()}"
    if torch.version.hip is not None:
        return "not measured on ROCm"
    if "microsoft" in platform.release().lower():
        return "under WSL the driver can fail at the first allocation"
    if TEGRA.exists():
        return "a Jetson's driver reports a full memory with them"
    return None
