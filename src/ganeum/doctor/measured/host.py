"""The machine that a training runs on, as far as remedies depend on it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from typing import Any

import torch

from ganeum import hardware
from ganeum.hardware import machine
from ganeum.step.compile import missing_for_cuda

SWITCHES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_LAUNCH_BLOCKING", "PYTORCH_NO_CUDA_MEMORY_CACHING",
    "NVIDIA_TF32_OVERRIDE", "TORCHDYNAMO_DISABLE",
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS",
    "PYTHONDEVMODE", "PYTHONMALLOC", "PYTHONTRACEMALLOC", "MALLOC_CHECK_", "TORCH_SHOW_CPP_STACKTRACES",
)  # fmt: skip


def of(at: torch.device) -> dict[str, Any]:
    """Plain values only.

    Args:
        at: where the training computes.
    """
    device = hardware.detect(str(at))
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    compiler = missing_for_cuda(device) if at.type == "cuda" else _missing_for_cpu()
    return {
        "ours": False,
        "device": at.type,
        "device_name": device.name,
        "capability": device.capability,
        "bf16": bool(device.bf16_unit) if at.type == "cpu" else (device.capability or (0, 0)) >= (8, 0),
        "cores": machine.cores(),
        "physical_cores": _physical(),
        "bound_cores": bound,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
        "all_cores": _could_have(bound),
        "environment": {name: os.environ[name] for name in SWITCHES if name in os.environ},
        "cannot_compile": compiler,
    }


def _physical() -> int:
    import psutil

    return min(machine.cores(), psutil.cpu_count(logical=False) or machine.cores())


def _could_have(bound: int) -> int:
    """Cores that the system would let this process have."""
    if not hasattr(os, "sched_setaffinity"):
        return bound
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        return len(os.sched_getaffinity(0))
    except OSError:
        return bound
    finally:
        os.sched_setaffinity(0, before)


def _missing_for_cpu() -> str | None:
    if sys.platform == "win32" or not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        return "a C++ compiler"
    return None if importlib.util.find_spec("torch._inductor") else "torch's inductor"
