"""Freed memory stays for the next batch: getting it again from the system costs much of a step."""

from __future__ import annotations

import ctypes
import sys

TRAINING_BYTES = 2**31 - 1
"""For training, whose steps free gigabytes."""
SERVICE_BYTES = 2**28
"""For a service, whose requests free megabytes."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def keep_freed_memory(max_bytes: int = TRAINING_BYTES) -> bool:
    """Let this process keep ``max_bytes`` that it has freed; return whether its C library can.

    A training step frees the activations of its batch and the next one asks for as many. By
    default glibc gives such large blocks back, and each page that returns is cleared first:
    docs/benchmarks.md has what that costs. Libraries other than glibc stay as they are, and so do
    threads that have run before.
    """
    if not sys.platform.startswith("linux"):
        return False
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is None:
        return False
    settings = ((_MMAP_THRESHOLD, max_bytes), (_TRIM_THRESHOLD, max_bytes), (_ARENA_MAX, 1))
    return all(tune(name, value) == 1 for name, value in settings)


def keeping_variables(max_bytes: int = TRAINING_BYTES) -> dict[str, str]:
    """Return the environment that does the same for a process yet to be started."""
    return {
        "MALLOC_MMAP_THRESHOLD_": str(max_bytes),
        "MALLOC_TRIM_THRESHOLD_": str(max_bytes),
        "MALLOC_ARENA_MAX": "1",
    }
