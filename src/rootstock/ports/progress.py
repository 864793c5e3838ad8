"""The progress of trials: each writes a small file into its directory, and the search reads it.

Files, because trials run in other processes and on other machines, which share the directory.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from rootstock.system.progress import show_seconds

FILE = "progress.json"
WRITE_SECONDS = 2.0
"""Minimum time between two writes of a trial."""


@dataclass(frozen=True)
class TrialProgress:
    """The state of a training; ``share`` is the finished part of the longest possible training."""

    epoch: int
    epochs: int
    share: float
    loss: float

    @classmethod
    def read(cls, directory: Path) -> TrialProgress | None:
        """Return the last state that a trial wrote; None if there is none."""
        try:
            return cls(**json.loads((directory / FILE).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, directory: Path) -> None:
        """Replace the file; without fsync, since nothing depends on it."""
        temporary = directory / f".{FILE}.tmp"
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
            temporary.replace(directory / FILE)


class TrialReporter:
    """Writes the progress of one training of at most ``epochs`` epochs of ``steps`` steps."""

    def __init__(self, directory: Path, epochs: int, steps: int) -> None:
        self._directory, self._epochs, self._steps = directory, epochs, max(1, steps)
        self._written = -WRITE_SECONDS

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Report that ``step`` steps of an epoch are done; both count from 1."""
        now = time.monotonic()
        if now - self._written >= WRITE_SECONDS:
            self._written = now
            done = (epoch - 1 + min(1.0, step / self._steps)) / self._epochs
            TrialProgress(epoch, self._epochs, done, loss).write(self._directory)

    def finish(self, epoch: int, loss: float) -> None:
        """Report the end, which may be before the last epoch."""
        TrialProgress(epoch, self._epochs, 1.0, loss).write(self._directory)


class TrialWatch:
    """Reads the progress of ``total`` trials below ``directory``.

    ``homes``: the folders of these trials, if the directory may contain those of other searches.
    """

    def __init__(self, directory: Path, total: int, homes: Collection[Path] | None = None) -> None:
        self._directory, self._total, self._homes = directory, total, homes
        self._started = time.monotonic()
        self._before = sum(trial.share for trial in self._read())

    def describe(self) -> str:
        """Return epoch, loss and maximum remaining time; empty if no trial has reported."""
        trials = self._read()
        running = [trial for trial in trials if trial.share < 1.0]
        parts = [
            f"epoch {trial.epoch} of {trial.epochs}, loss {trial.loss:.3f}" for trial in running
        ]
        if len(parts) > SHOWN_TRIALS:
            parts[SHOWN_TRIALS:] = [f"{len(running) - SHOWN_TRIALS} more trials"]
        done = sum(trial.share for trial in trials)
        gained = done - self._before
        if running and gained > 0:
            seconds = (time.monotonic() - self._started) * (self._total - done) / gained
            parts.append(f"at most {show_seconds(max(0.0, seconds))} left")
        return "; ".join(parts)

    def _read(self) -> list[TrialProgress]:
        homes = self._directory.glob("trial-*") if self._homes is None else self._homes
        found = (TrialProgress.read(folder) for folder in homes)
        return [trial for trial in found if trial is not None]


SHOWN_TRIALS = 3
"""Maximum number of running trials that are described individually."""
