"""How many processor cores this process may use."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

CORES_VARIABLE = "ROOTSTOCK_CORES"
CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """The cores this process may run on: those it is bound to, within its container's quota.

    ROOTSTOCK_CORES lowers it further. Where the system cannot say, all there are.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1  # macOS and Windows know no affinity
    quota = _quota(cgroup)
    if quota is not None:
        cores = min(cores, math.ceil(quota))
    with suppress(KeyError, ValueError):
        cores = min(cores, int(os.environ[CORES_VARIABLE]))
    return max(1, cores)


def _quota(cgroup: Path) -> float | None:
    """Cores' worth of time that cgroup v2, or else v1, grants; None: any."""
    with suppress(OSError, ValueError):
        share, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
        return None if share == "max" else int(share) / int(period)
    with suppress(OSError, ValueError):
        share, period = (
            (cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii")
            for name in ("quota", "period")
        )
        return int(share) / int(period) if int(share) > 0 else None
    return None
