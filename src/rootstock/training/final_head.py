"""The final head, fitted to training and validation images together."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from rootstock.heads.linear import Head, LinearHead, share_problems, write_head
from rootstock.tasks.learning import HeadSolver
from rootstock.tasks.targets import Targets
from rootstock.training.objectives import CROSS_VALIDATED, FOLDS, HEAD_FILE, fit_with_memory
from rootstock.training.trials import HeadTrial

FINAL = "final"
"""The folder of the final head, inside that of its trial."""


@dataclass(frozen=True)
class FinalHead:
    """The trial whose head has learned from all labelled images.

    ``outputs`` float32[M,K] are those of the images of ``targets``, each from a head of the same
    kind that has not seen the image; None if that would take too long.
    """

    trial: HeadTrial
    outputs: np.ndarray
    targets: Targets


def can_judge_all(targets: Targets) -> bool:
    """Return whether `fit_final_head` gives an output for each labelled image.

    Each is from a linear head that has not seen the image.
    """
    return _is_quick(targets) and len(targets.foldable()) == len(targets)


def _is_quick(targets: Targets) -> bool:
    return len(targets) * len(targets.names) <= CROSS_VALIDATED


def fit_final_head(
    trial: HeadTrial, solver: HeadSolver, features: np.ndarray, targets: Targets, *, device: str
) -> FinalHead | None:
    """Fit the head of ``trial`` with its penalty to features [N,D] of all labelled images.

    None if it cannot be fitted exactly, or if there are no further images to scale class means.
    """
    rows = targets.foldable()
    if trial.hidden or (trial.prototypes and not len(rows)):
        return None
    if not trial.prototypes and not _is_quick(targets):
        rows = rows[:0]

    def fit(place: torch.device) -> tuple[Head, np.ndarray]:
        outputs = np.empty((0, solver.width(targets)), np.float32)
        if len(rows):
            outputs = solver.out_of_fold(
                features, targets, folds=FOLDS, l2=trial.l2, seed=0, rows=rows, device=place
            )
        if trial.l2 is not None:
            head = solver.fit(features, targets, l2=trial.l2, device=place)
            return solver.finish(head, targets), outputs
        means = solver.fit_prototypes(features, targets)
        scale = np.float32(solver.best_scale(outputs, targets.take(rows)))
        return LinearHead(means.weights * scale, means.bias * scale), outputs * scale

    with share_problems():
        head, outputs = fit_with_memory(device, fit)
    directory = trial.directory / FINAL
    directory.mkdir(parents=True, exist_ok=True)
    write_head(head, directory / HEAD_FILE)
    return FinalHead(dataclasses.replace(trial, directory=directory), outputs, targets.take(rows))
