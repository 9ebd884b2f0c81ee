"""Peak memory of one job, also in a process that has run others before."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path

M_MMAP_THRESHOLD = -3
"""Number of that parameter in glibc's malloc.h."""
SMALL_BYTES, KEPT_BYTES = 2**20, 2**25
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


def flat(*, slabs: bool) -> None:
    """Keep the memory of a job of many slabs flat, where the C library can (glibc).

    It keeps blocks that are freed for others of their size and raises the size up to which it does, so that between
    those that are still held a job would grow slab by slab, to three times at a thousand slices. With ``slabs`` only
    small blocks are kept; without, those of up to `KEPT_BYTES`, as it would by itself: large ones take time to get.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, SMALL_BYTES if slabs else KEPT_BYTES)
