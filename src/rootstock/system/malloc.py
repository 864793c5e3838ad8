"""Freed memory is kept for the next batch: having it anew from the system costs much of a step."""

from __future__ import annotations

import ctypes
import sys

MUCH = 2**31 - 1
"""For training, whose steps free gigabytes."""
LITTLE = 2**28
"""For a service, whose requests free megabytes."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def keep_freed_memory(most: int = MUCH) -> bool:
    """Let this process keep up to ``most`` bytes that it has freed; whether its C library can.

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
    settings = ((_MMAP_THRESHOLD, most), (_TRIM_THRESHOLD, most), (_ARENA_MAX, 1))
    return all(tune(name, value) == 1 for name, value in settings)


def keeping_variables(most: int = MUCH) -> dict[str, str]:
    """The same for a process that is yet to be started, all its threads included."""
    return {
        "MALLOC_MMAP_THRESHOLD_": str(most),
        "MALLOC_TRIM_THRESHOLD_": str(most),
        "MALLOC_ARENA_MAX": "1",
    }
