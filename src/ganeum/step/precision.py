"""Which numbers a device computes with, why, and how torch is told so."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
COMPUTE_DTYPE = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose(
    requested: Literal["auto", "fp32", "tf32", "bf16", "fp16"], device: torch.device | str
) -> tuple[Precision, str]:
    """The precision to train with, and the reason in words.

    ``auto`` is bf16 where the device computes it natively: a GPU of compute capability 8.0 (Ampere) or later, a CPU
    with AVX512-BF16 or AMX. ``torch.cuda.is_bf16_supported()`` is not asked, because it says yes for a T4 and a V100
    too, which only emulate it: those get fp16, whose tensor cores they have from 7.0 (Volta) on. All else is fp32.
    """
    if requested != "auto":
        return requested, "as configured"
    device = torch.device(device)
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        name = f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor})"
        if major >= 8:
            return "bf16", f"{name} computes bf16 on its tensor cores, with fp32's range: no loss scaling needed"
        if major >= 7:
            return "fp16", f"{name} has tensor cores for fp16 but only emulates bf16; the loss is scaled"
        return "fp32", f"{name} has no tensor cores"
    if device.type == "cpu":
        unit = _cpu_bf16_unit()
        if unit:
            return "bf16", f"this CPU multiplies bf16 natively ({unit}), about twice as fast as fp32"
        return "fp32", "this CPU has neither AVX512-BF16 nor AMX, and would emulate bf16"
    return "fp32", f"bf16 and fp16 were not measured on {device.type}"


def apply(precision: Precision) -> None:
    """Tell torch whether fp32 matrix products may be rounded to TF32: only in ``tf32``. Global to the process."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """The context of a forward pass: for bf16 and fp16 matrix products in them, sums and norms in fp32."""
    dtype = COMPUTE_DTYPE[precision]
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def _cpu_bf16_unit() -> str | None:
    """The name of the CPU's bf16 matrix unit; torch is asked first, then /proc/cpuinfo (Linux)."""
    for name, probe in (("AMX", "_is_amx_tile_supported"), ("AVX512-BF16", "_is_avx512_bf16_supported")):
        if getattr(torch.cpu, probe, lambda: False)():
            return name
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return None
    if "amx_bf16" in flags:
        return "AMX"
    return "AVX512-BF16" if "avx512_bf16" in flags else None
