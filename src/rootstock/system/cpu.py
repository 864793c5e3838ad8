"""The processor, and how many of its cores this process may use."""

from __future__ import annotations

import math
import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path

CORES_VARIABLE = "ROOTSTOCK_CORES"
CGROUP, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """The cores this process may run on: those it is bound to, within its container's quota.

    A container sees its own group as the root; a service of systemd, or a container in the host's
    namespace, is bound by its group and all groups above it.

    ROOTSTOCK_CORES lowers it further. Where the system cannot say, all there are.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1  # macOS and Windows know no affinity
    quotas = [_quota(folder) for folder in _groups(cgroup, membership)]
    cores = min([cores, *(math.ceil(quota) for quota in quotas if quota is not None)])
    with suppress(KeyError, ValueError):
        cores = min(cores, int(os.environ[CORES_VARIABLE]))
    return max(1, cores)


@cache
def processor_name() -> str:
    """Return the processor's name: machines that share a folder need not be alike."""
    with suppress(OSError, IndexError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return text.partition("model name")[2].partition(":")[2].splitlines()[0].strip()
    return platform.processor() or platform.machine()


def _groups(cgroup: Path, membership: Path) -> list[Path]:
    """The root and every group down to this process's own, as cgroup v2 has them."""
    groups = [cgroup]
    with suppress(OSError, ValueError):
        for line in membership.read_text(encoding="utf-8").splitlines():
            number, _, path = line.split(":", 2)
            if number == "0":
                for part in Path(path).parts[1:]:
                    groups.append(groups[-1] / part)
    return groups


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
