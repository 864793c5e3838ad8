"""The parts of a task for training: exact heads on cached features, and the fine-tuning loss.

Needs torch; a service never imports it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rootstock.backbones.tap_features import TapPart
from rootstock.heads.linear import (
    CPU,
    FOLD_TOLERANCE,
    Head,
    HeadProblem,
    LinearHead,
    fold_weights,
    split_folds,
)
from rootstock.heads.mlp import fit_mlp_head
from rootstock.heads.solver import OutputLoss
from rootstock.tasks.targets import Targets


@dataclass(frozen=True)
class Coded:
    """Targets in the form of the solver.

    ``penalty_scale`` multiplies each strength; ``complete`` adds the outputs that the solver left
    out, so that the head has one output per name.
    """

    loss: OutputLoss
    row_weights: Tensor
    penalty_scale: float = 1.0
    complete: Callable[[LinearHead], LinearHead] = lambda head: head


@dataclass(frozen=True)
class PathScores:
    """The results of each strength on unseen images, the strongest first.

    ``scores`` and ``std`` float64[S]: mean and deviation over folds; ``losses`` float64[S,N].
    """

    strengths: tuple[float, ...]
    scores: np.ndarray
    std: np.ndarray
    losses: np.ndarray


class HeadSolver(ABC):
    """Fits linear heads exactly, for the loss of one task, for a range of L2 strengths.

    A strength multiplies half the squared norm of the weights and is added to the *mean* loss, so
    that a value has the same meaning for any number of images.
    """

    @abstractmethod
    def code(self, targets: Targets, device: torch.device) -> Coded:
        """Return the targets in the form of the solver.

        Raises:
            TrainingError: no head can be fitted to these targets.
        """

    @abstractmethod
    def measure(self, outputs: np.ndarray, targets: Targets) -> tuple[float, np.ndarray]:
        """Return the score, higher is better and at most 1, and each image's loss float64[N]."""

    @abstractmethod
    def target_loss(self, targets: Targets, device: torch.device) -> TargetLoss:
        """Return the same loss for a head with a hidden layer."""

    def reading(self, parts: Sequence[TapPart]) -> HeadSolver:
        """Return the solver for features made of these parts."""
        return self

    def width(self, targets: Targets) -> int:
        """Return the number of outputs of a head."""
        return len(targets.names)

    def finish(self, head: Head, targets: Targets) -> Head:
        """Return the final head, after the last step that some weightings need."""
        return head

    def walk(
        self,
        features: np.ndarray,
        targets: Targets,
        *,
        strengths: Sequence[float],
        device: torch.device = CPU,
    ) -> Iterator[tuple[float, LinearHead]]:
        """Yield each strength with its head on features [N,D], the strongest first.

        ``device`` computes, and holds the features twice in float32.
        Raises:
            TrainingError: no head can be fitted to these targets or features.
        """
        coded = self.code(targets, device)
        problem = HeadProblem.of(features, device)
        given = {strength * coded.penalty_scale: strength for strength in strengths}
        for scaled, (head,) in problem.walk(
            coded.loss, coded.row_weights.unsqueeze(0), list(given)
        ):
            yield given[scaled], coded.complete(head)

    def fit(
        self, features: np.ndarray, targets: Targets, *, l2: float, device: torch.device = CPU
    ) -> LinearHead:
        """Return the head for one strength; see `walk`."""
        ((_, head),) = self.walk(features, targets, strengths=[l2], device=device)
        return head

    def fit_hidden(
        self,
        features: np.ndarray,
        targets: Targets,
        *,
        hidden: int,
        l2: float,
        seed: int = 0,
        device: torch.device = CPU,
    ) -> Head:
        """Return a head with a hidden layer; see `heads.mlp.fit_mlp_head`."""
        loss = self.target_loss(targets, device)
        return fit_mlp_head(
            features,
            loss.encode(targets.values),
            hidden=hidden,
            l2=l2,
            n_outputs=self.width(targets),
            mean_loss=lambda outputs, encoded: loss.total(outputs, encoded) / loss.weight(encoded),
            seed=seed,
            device=device,
        )

    has_prototypes: ClassVar[bool] = False
    """Whether `fit_prototypes` is available: the targets have classes."""

    def fit_prototypes(self, features: np.ndarray, targets: Targets) -> LinearHead:
        """Return a head from the class means of features [N,D]."""
        raise NotImplementedError

    def best_scale(self, outputs: np.ndarray, targets: Targets) -> float:
        """Return the factor for outputs [N,K] of unseen images that gives the lowest loss."""
        return 1.0

    def cross_validate(
        self,
        features: np.ndarray,
        targets: Targets,
        *,
        folds: int,
        strengths: Sequence[float],
        seed: int,
        enough: Callable[[np.ndarray], bool] | None = None,
        device: torch.device = CPU,
    ) -> PathScores:
        """Score every strength on unseen images, with all folds at the same time.

        The folds keep the groups of the targets whole; see `split_folds`.
        Features are standardised once, over all folds. The strongest strength comes first;
        ``enough`` gets the losses [S,N] so far, and can end the walk.
        Raises:
            TrainingError: no head can be fitted to these targets or features.
        """
        tried: list[float] = []
        scores: list[list[float]] = []
        losses: list[np.ndarray] = []
        tests = split_folds(targets.strata, folds, seed, targets.groups)
        walk = self._walk_folds(features, targets, tests, strengths, device)
        for strength, heads in walk:
            fold_scores = []
            unseen = np.empty(len(targets))
            for head, test in zip(heads, tests, strict=True):
                score, unseen[test] = self.measure(head.outputs(features[test]), targets.take(test))
                fold_scores.append(score)
            tried.append(strength)
            scores.append(fold_scores)
            losses.append(unseen)
            if enough and enough(np.stack(losses)):
                break
        return PathScores(
            tuple(tried), np.mean(scores, axis=1), np.std(scores, axis=1), np.stack(losses)
        )

    def probe(
        self,
        features: np.ndarray,
        targets: Targets,
        *,
        folds: int,
        l2: float,
        seed: int,
    ) -> tuple[float, float]:
        """Return mean and deviation over folds of the score on unseen images."""
        path = self.cross_validate(features, targets, folds=folds, strengths=[l2], seed=seed)
        return float(path.scores[0]), float(path.std[0])

    def out_of_fold(
        self,
        features: np.ndarray,
        targets: Targets,
        *,
        folds: int,
        l2: float | None,
        seed: int,
        rows: np.ndarray | None = None,
        device: torch.device = CPU,
    ) -> np.ndarray:
        """Return outputs float32[M,K] of images from heads that were fitted without their fold.

        ``rows`` int[M], by default all, are divided into folds; the other rows are in no fold, and
        every head is fitted to them. ``l2`` None: the heads are class means.
        Raises:
            TrainingError: no head can be fitted to these targets or features.
        """
        every = np.arange(len(targets))
        rows = every if rows is None else rows
        known = targets.take(rows)
        tests = split_folds(known.strata, folds, seed, known.groups)
        places = [rows[test] for test in tests]
        parts = [np.setdiff1d(every, place) for place in places]
        heads: list[Head]
        if l2 is None:
            heads = [self.fit_prototypes(features[part], targets.take(part)) for part in parts]
        else:
            ((_, fitted),) = self._walk_folds(features, targets, places, [l2], device)
            heads = [
                self.finish(head, targets.take(part))
                for head, part in zip(fitted, parts, strict=True)
            ]
        outputs = np.empty((len(rows), self.width(targets)), np.float32)
        for head, test, place in zip(heads, tests, places, strict=True):
            outputs[test] = head.outputs(features[place])
        return outputs

    def _walk_folds(
        self,
        features: np.ndarray,
        targets: Targets,
        tests: Sequence[np.ndarray],
        strengths: Sequence[float],
        device: torch.device,
    ) -> Iterator[tuple[float, list[LinearHead]]]:
        """Yield each strength, with the heads that were fitted without each fold."""
        coded = self.code(targets, device)
        problem = HeadProblem.of(features, device)
        given = {strength * coded.penalty_scale: strength for strength in strengths}
        path = problem.walk(
            coded.loss,
            fold_weights(coded.row_weights, tests),
            list(given),
            tolerance=FOLD_TOLERANCE,
        )
        for scaled, heads in path:
            yield given[scaled], [coded.complete(head) for head in heads]


class TargetLoss(ABC):
    """The loss of a fine-tuning, summed over images so that a batch can be computed in parts."""

    @abstractmethod
    def encode(self, values: np.ndarray) -> Tensor:
        """Return target values as a tensor [B,...] that mixup can blend."""

    @abstractmethod
    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the weighted losses of outputs float32[B,K]."""

    def weight(self, targets: Tensor) -> Tensor:
        """Return the sum of the weights of encoded targets [B,...]."""
        return torch.tensor(float(len(targets)), device=targets.device)

    def move(self, targets: Tensor, maps: Tensor) -> Tensor:
        """Return encoded targets [B,...] of images transformed by ``maps`` [B,2,3].

        A map leads from the new image to the old one, in coordinates from -1 to 1.
        """
        return targets


def log_mean(logs: Tensor) -> Tensor:
    """Return the log of the mean of exp(``logs``) [n,...] over the first dimension.

    Written out: not every runtime subtracts the maximum in its own operator for it.
    """
    top = logs.amax(dim=0)
    return top + (logs - top).exp().mean(dim=0).log()


def average_classes(outputs: Tensor) -> Tensor:
    """Return the logs of the mean probabilities of classes, for logits [n,N,K,...]."""
    return log_mean(outputs.log_softmax(dim=2))
