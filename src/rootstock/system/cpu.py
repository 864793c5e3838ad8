"""The processor, and the number of cores that this process may use."""

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
    """Return the number of cores for this process, within its affinity and container quota.

    A container sees its own group as the root; a service of systemd, or a container in the host's
    namespace, is limited by its group and all groups above it.

    ROOTSTOCK_CORES lowers the number. If the system reports nothing, all cores count.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1  # macOS and Windows have no affinity
    quotas = [_quota(folder) for folder in _groups(cgroup, membership)]
    cores = min([cores, *(math.ceil(quota) for quota in quotas if quota is not None)])
    with suppress(KeyError, ValueError):
        cores = min(cores, int(os.environ[CORES_VARIABLE]))
    return max(1, cores)


@cache
def processor_name() -> str:
    """Return the processor's name, because machines that share a folder may differ."""
    with suppress(OSError, IndexError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return text.partition("model name")[2].partition(":")[2].splitlines()[0].strip()
    return platform.processor() or platform.machine()


def _groups(cgroup: Path, membership: Path) -> list[Path]:
    """Return the root and every group down to this process's, as in cgroup v2."""
    groups = [cgroup]
    with suppress(OSError, ValueError):
        for line in membership.read_text(encoding="utf-8").splitlines():
            number, _, path = line.split(":", 2)
            if number == "0":
                for part in Path(path).parts[1:]:
                    groups.append(groups[-1] / part)
    return groups


def _quota(cgroup: Path) -> float | None:
    """Return the cores that cgroup v2, or v1, grants; None: no limit."""
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
