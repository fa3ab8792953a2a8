"""The machine: its device, how fast that can be, and whether this torch can use it."""

from ganeum.hardware.check import check_torch
from ganeum.hardware.detect import detect
from ganeum.hardware.device import Device
from ganeum.hardware.environment import environment
from ganeum.hardware.machine import look
from ganeum.hardware.peaks import cache_directory, measure_peak, with_measured_peak

__all__ = [
    "Device",
    "cache_directory",
    "check_torch",
    "detect",
    "environment",
    "look",
    "measure_peak",
    "with_measured_peak",
]
