"""Decisions after a search: the model, its views and its calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rootstock.data.views import Views
from rootstock.ports.search import Searcher
from rootstock.system.progress import say
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import Calibration
from rootstock.training.members import Ensemble, train_ensemble
from rootstock.training.selection import choose_views, describe_winner, is_spoilt
from rootstock.training.tracked import Tracking
from rootstock.training.training_job import TrainingJob
from rootstock.training.trials import FinetunedTrial, HeadTrial, best_head, trained_strategy


@dataclass(frozen=True)
class SearchResult:
    """The trials of both searches; ``tuned`` is empty if nothing was fine-tuned.

    ``raced`` are heads of another job that lost a race against the fine-tuning.
    """

    heads: Sequence[HeadTrial]
    tuned: Sequence[FinetunedTrial]
    raced: Sequence[HeadTrial] = ()


@dataclass(frozen=True)
class Choice:
    """The trial that becomes the model, its strategy, and the reason in one line.

    ``job`` is the training of the trial.
    """

    job: TrainingJob
    trial: HeadTrial | FinetunedTrial
    strategy: str
    kept_head: bool
    """Whether a head was better than the fine-tuning."""
    why: str
    ensemble: Ensemble | None = None
    """What came of `train.ensemble`; None if one network was asked for."""


def choose_trial(
    job: TrainingJob, result: SearchResult, *, raced_job: TrainingJob | None = None
) -> Choice:
    """Choose the best fine-tuned trial or average, or the best head if that is better.

    ``raced_job`` is the training of the raced heads of ``result``.
    """
    task = job.data.task
    start = best_head(result.heads, task.selection)
    head, head_job = start, job
    if result.raced and raced_job:
        head = best_head([*result.raced, start], task.selection)
        head_job = job if head is start else raced_job
    best: HeadTrial | FinetunedTrial = head
    losses = [head_job.calibrated_losses(head)]
    if result.tuned:
        best, tuned_losses = job.best_tuned(start, result.tuned)
        losses.append(tuned_losses)
        if is_spoilt(
            head, best, score=task.val_score, head_losses=losses[0], tuned_losses=losses[1]
        ):
            best = head
    return Choice(
        job if isinstance(best, FinetunedTrial) else head_job,
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


def widen_choice(
    choice: Choice,
    result: SearchResult,
    searcher: Searcher,
    tracking: Tracking,
    *,
    seconds: float | None,
) -> Choice:
    """Return the choice with an ensemble in place of its network, if that pays.

    A head on frozen features stays as it is: every seed gives the same.
    """
    if isinstance(choice.trial, HeadTrial):
        why = "the model is a head on frozen features, which is the same for every seed"
        ensemble = Ensemble(choice.trial, 1, (), why)
    else:
        ensemble = train_ensemble(
            choice.job,
            searcher,
            tracking,
            head=best_head(result.heads, choice.job.data.task.selection),
            first=choice.trial,
            tuned=result.tuned,
            seconds=seconds,
        )
    say(f"ensemble: {ensemble.why}")
    why = f"{choice.why}; {ensemble.why}"
    return replace(choice, trial=ensemble.trial, why=why, ensemble=ensemble)


@dataclass(frozen=True)
class Calibrated:
    """How the model is served: its head, views and calibration, and its validation results.

    ``decisions`` [M,...] are those on the images of ``targets``; the model that made them has not
    seen these images. ``metrics`` are those of ``trial`` before its head was fitted again, or of
    the heads that made the decisions.
    """

    trial: HeadTrial | FinetunedTrial
    views: Views
    views_why: str
    calibration: Calibration
    decisions: np.ndarray
    targets: Targets
    metrics: Mapping[str, float]
    final: bool = False
    """Whether the head was fitted again, to training and validation images."""


def calibrate(
    job: TrainingJob,
    trial: HeadTrial | FinetunedTrial,
    *,
    option: Views,
    threshold: str,
    is_fitted: bool = True,
) -> Calibrated:
    """Choose the views, fit the final head and the calibration, and measure the validation images.

    The calibration of a final head is fitted to outputs of heads that have not seen the image; that
    of another model, or of several views, is fitted to the validation images. ``threshold`` is
    `task.threshold`. If the trial's head ``is_fitted`` to nothing yet, only the final head is
    fitted; this needs `can_judge_final_head` and one view.
    """
    task, val = job.data.task, job.data.targets("val")
    views, why = choose_views(
        option,
        mirror_is_safe=not job.plan.finetune or job.plan.finetune.flip,
        loss=lambda views: float(task.losses(job.val_outputs(trial, views), val).mean()),
    )
    final = job.fit_final_head(trial)
    if is_fitted:
        outputs = job.val_outputs(trial, views)
    else:
        assert final is not None
        outputs = final.outputs[-len(val) :]
    unseen, targets = outputs, val
    if final and len(final.outputs) and views == "one":
        unseen, targets = final.outputs, final.targets
    calibration = task.calibrate(unseen, targets)
    calibration = task.choose_thresholds(unseen, targets, calibration, threshold)
    return Calibrated(
        trial=final.trial if final else trial,
        views=views,
        views_why=why,
        calibration=calibration,
        decisions=task.decide(unseen, calibration),
        targets=targets,
        metrics=task.describe_calibration(outputs, val, calibration),
        final=final is not None,
    )
