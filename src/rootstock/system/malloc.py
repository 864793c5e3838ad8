"""Keep freed memory for the next batch, because requesting it again from the system is slow."""

from __future__ import annotations

import ctypes
import sys

TRAINING_BYTES = 2**31 - 1
"""For training, whose steps free gigabytes."""
SERVICE_BYTES = 2**28
"""For a service, whose requests free megabytes."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def keep_freed_memory(max_bytes: int = TRAINING_BYTES) -> bool:
    """Let this process keep ``max_bytes`` of freed memory; return whether its C library can.

    A training step frees the activations of its batch, and the next step needs the same amount. By
    default glibc returns such large blocks to the system, and each page is cleared when it comes
    back: docs/benchmarks.md shows the cost. Other libraries than glibc, and threads that have
    already run, do not change.
    """
    if not sys.platform.startswith("linux"):
        return False
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is None:
        return False
    settings = ((_MMAP_THRESHOLD, max_bytes), (_TRIM_THRESHOLD, max_bytes), (_ARENA_MAX, 1))
    return all(tune(name, value) == 1 for name, value in settings)


def keeping_variables(max_bytes: int = TRAINING_BYTES) -> dict[str, str]:
    """Return the environment with the same effect for a process that is started later."""
    return {
        "MALLOC_MMAP_THRESHOLD_": str(max_bytes),
        "MALLOC_TRIM_THRESHOLD_": str(max_bytes),
        "MALLOC_ARENA_MAX": "1",
    }
