"""Peak memory of one job, also in a process that has run others before."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def reset() -> None:
    """Reset the peak of this process, where the kernel can (Linux)."""
    if CLEAR.exists():
        CLEAR.write_text("5")


def resident_bytes() -> int:
    """Peak memory of this process since `reset`, or since its start."""
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def release() -> None:
    """Give free memory back to the system, where the C library can (glibc).

    It keeps what is freed between blocks that are still held, so that a job of many slabs would grow slab by slab.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
