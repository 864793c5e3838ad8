"""Whether a run is writing to the project, and its progress."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from rootstock.config.paths import Paths
from rootstock.ports.progress import TrialProgress, TrialWatch

STAGES = ("index", "assess", "plan", "features", "train", "evaluate", "register")
_LOCKS = Path("/proc/locks")


class PipelineWatch:
    """Watches the project's folder. It takes no lock, so it disturbs no run."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._since = 0.0
        self._watches: dict[Path, TrialWatch] = {}

    def describe(self) -> dict[str, Any]:
        """Return the state of each stage, whether a run is active, and its trials' progress."""
        holder = find_holder(self._paths.root / ".rootstock/lock")
        if holder is None:
            self._since, self._watches = 0.0, {}
        elif not self._since:
            self._since = time.time() - _age_seconds(holder)
        stages = [self._describe_stage(name) for name in STAGES]
        running = next((one["name"] for one in stages if not one["fresh"]), STAGES[-1])
        trials = self._trials() if holder is not None else {}
        return {
            "running": holder is not None,
            "stage": running if holder is not None else "",
            "seconds": round(time.time() - self._since) if self._since else 0,
            "stages": stages,
            **trials,
        }

    def _describe_stage(self, name: str) -> dict[str, Any]:
        paths = self._paths
        artifact = {
            "index": paths.manifest,
            "assess": paths.review,
            "plan": paths.plan,
            "features": paths.features,
            "train": paths.training,
            "evaluate": paths.metrics,
            "register": paths.registration,
        }[name]
        try:
            at = artifact.stat().st_mtime
        except OSError:
            at = 0.0
        return {"name": name, "at": at, "fresh": at > max(self._since, 0.0)}

    def _trials(self) -> dict[str, Any]:
        folders = {path.parent.parent for path in self._paths.trials.glob("**/progress.json")}
        newest = max(folders, key=lambda folder: folder.stat().st_mtime, default=None)
        if newest is None:
            return {}
        trials = [TrialProgress.read(folder) for folder in newest.glob("trial-*")]
        known = [trial.share for trial in trials if trial is not None]
        watch = self._watches.setdefault(newest, TrialWatch(newest, len(known)))
        return {"share": sum(known) / max(1, len(known)), "text": watch.describe()}


def find_holder(lock: Path) -> int | None:
    """Return the process that holds a lock file; None if there is none or it is unknown."""
    try:
        facts = lock.stat()
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return None
    place = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    for line in lines:
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5] == place:
            return int(words[4])
    return None


def _age_seconds(process: int) -> float:
    """Return how long a process has been running; 0 if that is unknown."""
    try:
        ticks = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (IndexError, OSError, ValueError):
        return 0.0
    return max(0.0, uptime - ticks / os.sysconf("SC_CLK_TCK"))
