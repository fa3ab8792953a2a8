"""Tell the C library to keep memory that a step has freed, because the next step asks for the same again.

glibc gives blocks of megabytes back to the system at once, and every step faults them in again, page by page: a fifth
of a CPU step's time. Training asks for the same sizes over and over, so keeping them costs no more than its peak.
"""

from __future__ import annotations

import ctypes
import platform
import sys

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
