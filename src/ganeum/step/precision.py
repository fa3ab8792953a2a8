"""Which numbers a device computes with, why, and how torch is told so."""

from __future__ import annotations

import contextlib
from typing import Literal

import torch

from ganeum.hardware import machine
from ganeum.hardware.device import fast_precision

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
        value = fast_precision((major, minor), None)
        return value, {
            "bf16": f"{name} computes bf16 on its tensor cores, with fp32's range: no loss scaling needed",
            "fp16": f"{name} has tensor cores for fp16 but only emulates bf16; the loss is scaled",
            "fp32": f"{name} has no tensor cores",
        }[value]
    if device.type == "cpu":
        unit = machine.bf16_unit()
        return fast_precision(None, unit), (
            f"this CPU multiplies bf16 natively ({unit}), about twice as fast as fp32"
            if unit
            else "this CPU has neither AVX512-BF16 nor AMX, and would emulate bf16"
        )
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
