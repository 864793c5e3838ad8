"""What is decided once a search is over: the model, its views, its calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rootstock.data.views import Views
from rootstock.tasks.task import Calibration
from rootstock.train.selection import choose_views, describe_winner, is_spoilt
from rootstock.train.training_job import TrainingJob
from rootstock.train.trials import FinetunedTrial, HeadTrial, best_trial, trained_strategy


@dataclass(frozen=True)
class SearchResult:
    """The trials of both searches; ``tuned`` is empty if nothing was fine-tuned."""

    heads: Sequence[HeadTrial]
    tuned: Sequence[FinetunedTrial]


@dataclass(frozen=True)
class Choice:
    """The trial that becomes the model, the strategy that made it, and why, in one line."""

    trial: HeadTrial | FinetunedTrial
    strategy: str
    kept_head: bool
    """Whether the head won against the fine-tuning that started from it."""
    why: str


def choose_trial(job: TrainingJob, result: SearchResult) -> Choice:
    """Choose the best fine-tuned trial or average, unless it is worse than the head."""
    task = job.data.task
    head = best_trial(result.heads, task.selection)
    best: HeadTrial | FinetunedTrial = head
    losses = [job.calibrated_losses(head)]
    if result.tuned:
        best = job.best_tuned(head, result.tuned)
        losses.append(job.calibrated_losses(best))
        if is_spoilt(
            head, best, score=task.val_headline, head_losses=losses[0], tuned_losses=losses[1]
        ):
            best = head
    return Choice(
        best,
        trained_strategy(best, job.plan.strategy),
        kept_head=bool(result.tuned) and isinstance(best, HeadTrial),
        why=describe_winner(
            best,
            head,
            result.tuned,
            [float(each.mean()) for each in losses],
            metric=task.selection,
        ),
    )


@dataclass(frozen=True)
class Calibrated:
    """How the model is served: its views, calibration, and what it then does on validation.

    ``decisions`` [V,...] are those of the validation images.
    """

    views: Views
    views_why: str
    calibration: Calibration
    decisions: np.ndarray
    metrics: Mapping[str, float]


def calibrate(job: TrainingJob, trial: HeadTrial | FinetunedTrial, *, option: Views) -> Calibrated:
    """Choose the views, fit the calibration, and measure the validation images with both."""
    task, targets = job.data.task, job.data.targets("val")
    views, why = choose_views(
        option,
        mirror_is_safe=not job.plan.finetune or job.plan.finetune.flip,
        loss=lambda views: float(task.losses(job.val_outputs(trial, views), targets).mean()),
    )
    outputs = job.val_outputs(trial, views)
    calibration = task.calibrate(outputs, targets)
    return Calibrated(
        views,
        why,
        calibration,
        task.decide(outputs, calibration),
        task.describe_calibration(outputs, targets, calibration),
    )
