"""Limits of a process on its memory and time, so that one bad file cannot stop a machine."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path


def bound_memory(extra: int) -> None:
    """Limit this process to ``extra`` more bytes, if the system supports it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + extra
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def resident_bytes() -> int:
    """Return this process's resident memory; 0 if the system does not report it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()
    return 0


def bound_seconds(seconds: float) -> None:
    """End this process after this many more seconds of processor time; 0: no limit.

    Waiting for a disk or for a busy machine does not count.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)
