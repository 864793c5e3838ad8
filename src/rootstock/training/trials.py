"""The trials of a training, one type per kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rootstock.backbones.card import split_grid, split_taps
from rootstock.backbones.load import LAST
from rootstock.config.choices import Strategy
from rootstock.errors import TrainingError
from rootstock.metrics import lead
from rootstock.ports.search import Trial
from rootstock.system.files import read_json
from rootstock.training.finetune import HISTORY
from rootstock.training.objectives import PATH_FILE, UNSEEN_FILE, UNSEEN_LOSS

AnyTrial = TypeVar("AnyTrial", bound=Trial)


@dataclass(frozen=True)
class HeadTrial(Trial):
    """A head on the cached features of one tap, at the best of several penalties, if any."""

    @classmethod
    def of(cls, trial: Trial) -> HeadTrial:
        """Return the outcome of a search of heads with this type."""
        return cls(**vars(trial))

    @property
    def tap(self) -> str:
        """The depth of the features that the head reads."""
        return str(self.params["tap"])

    @property
    def hidden(self) -> int:
        """The width of the hidden layer; 0: the head is linear."""
        return int(self.params.get("hidden", 0))

    @property
    def prototypes(self) -> bool:
        """Whether the head compares with the mean of each class."""
        return bool(self.params.get("prototypes", False))

    @property
    def name(self) -> str:
        """The kind of head and its tap, for a legend or a line."""
        if self.prototypes:
            return f"{self.tap}, class means"
        return f"{self.tap}, hidden layer of {self.hidden}" if self.hidden else self.tap

    @property
    def l2(self) -> float | None:
        """The chosen penalty; None for class means, which have none."""
        return self.metrics.get("l2")

    @property
    def is_linear(self) -> bool:
        """Whether the head is a fitted linear one, not class means."""
        return not (self.hidden or self.prototypes)

    def unseen_losses(self) -> np.ndarray | None:
        """Return each labelled image's loss from a head that has not seen it, if measured."""
        file = self.directory / UNSEEN_FILE
        return np.load(file) if file.exists() else None

    def losses_by_penalty(self, metric: str) -> dict[float, float]:
        """Return the validation loss ``metric`` of every tried penalty."""
        path = read_json(self.directory / PATH_FILE, made_by="train")["path"]
        return {row["l2"]: row[metric] for row in path}


@dataclass(frozen=True)
class FinetunedTrial(Trial):
    """Fine-tuned weights: of one training, of an average, or of several networks."""

    @classmethod
    def of(cls, trial: Trial, metric: str) -> FinetunedTrial:
        """Return the outcome of a fine-tuning with the metrics of the kept epoch.

        The kept epoch has the lowest validation loss ``metric``. A trial that was ended early
        reported a later epoch.
        """
        tuned = cls(**vars(trial))
        if trial.error or "best_epoch" in trial.metrics or not tuned.history_file.exists():
            return tuned
        epochs = tuned.epochs()
        best = min(range(len(epochs)), key=lambda number: epochs[number][metric])
        return replace(tuned, metrics=epochs[best] | {"best_epoch": best + 1.0})

    @property
    def average_of(self) -> int:
        """The number of averaged trainings; 0: a single training."""
        return int(self.params.get("average_of", 0))

    @property
    def networks(self) -> int:
        """The number of networks that answer together."""
        return int(self.params.get("networks", 1))

    @property
    def with_start(self) -> bool:
        """Whether the weights before fine-tuning are part of the average."""
        return bool(self.params.get("with_start", False))

    @property
    def history_file(self) -> Path:
        """The file with the metrics of every epoch, as JSON."""
        return self.directory / HISTORY

    def epochs(self) -> list[dict[str, float]]:
        """Return the metrics of every epoch."""
        epochs: list[dict[str, float]] = read_json(self.history_file, made_by="train")["epochs"]
        return epochs

    @property
    def name(self) -> str:
        """The parameters in a few words, for a legend."""
        return ", ".join(
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in self.params.items()
        )


def best_trial(trials: Sequence[AnyTrial], metric: str) -> AnyTrial:
    """Return the trial with the lowest validation loss ``metric``, see `Task.selection`.

    Raises:
        TrainingError: every trial failed; the message holds their errors.
    """
    done = [trial for trial in trials if not trial.error]
    if not done:
        errors = "\n".join(f"  {dict(trial.params)}: {trial.error}" for trial in trials)
        raise TrainingError(f"all {len(trials)} trials failed:\n{errors}")
    return min(done, key=lambda trial: trial.metrics[metric])


def best_head(trials: Sequence[HeadTrial], metric: str) -> HeadTrial:
    """Return the head with the lowest loss on all labelled images, or on the validation images.

    ``metric``, that on the validation images, decides if some head lacks `UNSEEN_LOSS`. Of linear
    heads that the best one leads by no more than a standard error, the first is taken: candidates
    are in the order of preference. Chosen with street_fence and animals in view.
    Raises:
        TrainingError: every trial failed.
    """
    known = all(UNSEEN_LOSS in trial.metrics for trial in trials if not trial.error)
    best = best_trial(trials, UNSEEN_LOSS if known else metric)
    least = best.unseen_losses() if known and best.is_linear else None
    if least is None:
        return best
    for trial in trials:
        losses = trial.unseen_losses() if trial.is_linear and not trial.error else None
        if losses is not None:
            ahead, noise = lead(least, losses)
            if ahead <= noise:
                return trial
    return best


def trained_strategy(trial: HeadTrial | FinetunedTrial, planned: Strategy) -> Strategy:
    """Return the strategy of ``trial``, from a training of the strategy ``planned``.

    It differs if the plan was to fine-tune and a head was kept, or if a head at another depth than
    expected was best.
    """
    if isinstance(trial, FinetunedTrial):
        return planned
    parts = [split_grid(part) for part in split_taps(trial.tap)]
    only_maps = all(grid for _, grid in parts)  # the same whatever the depth
    return "linear_probe" if only_maps or parts[-1][0] == LAST else "early_features"


def as_records(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return trials for JSON."""
    return [
        {"params": dict(t.params), "metrics": dict(t.metrics), "error": t.error} for t in trials
    ]
