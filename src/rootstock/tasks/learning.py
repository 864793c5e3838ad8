"""What a task brings to training: exact heads on cached features, and the loss of fine-tuning.

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
    """Targets as the solver works with them.

    ``penalty_scale`` multiplies each strength; ``complete`` turns a fitted head into one with an
    output for each name, where the solver left some out.
    """

    loss: OutputLoss
    row_weights: Tensor
    penalty_scale: float = 1.0
    complete: Callable[[LinearHead], LinearHead] = lambda head: head


@dataclass(frozen=True)
class PathScores:
    """Each strength on unseen images, from the strongest on.

    ``scores`` and ``std`` float64[S]: mean and deviation over folds; ``losses`` float64[S,N].
    """

    strengths: tuple[float, ...]
    scores: np.ndarray
    std: np.ndarray
    losses: np.ndarray


class HeadSolver(ABC):
    """Fits linear heads exactly, for the loss of one task, along a path of L2 strengths.

    A strength weighs half the squared norm of the weights against the *mean* loss, so that one
    value means the same for any number of images.
    """

    @abstractmethod
    def code(self, targets: Targets, device: torch.device) -> Coded:
        """Return the targets as the solver works with them.

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
        """Return the solver for features that are made of these parts."""
        return self

    def width(self, targets: Targets) -> int:
        """Return how many outputs a head has."""
        return len(targets.names)

    def finish(self, head: Head, targets: Targets) -> Head:
        """Return the head as it is to be used, where the weighting asks for a last step."""
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

        ``device`` holds the features, in float32 and twice, and computes.
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
        """Return the head of one strength; see `walk`."""
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
    """Whether `fit_prototypes` is there: targets have classes."""

    def fit_prototypes(self, features: np.ndarray, targets: Targets) -> LinearHead:
        """Return a head of the class means on features [N,D]."""
        raise NotImplementedError

    def best_scale(self, outputs: np.ndarray, targets: Targets) -> float:
        """Return what to multiply outputs [N,K] for unseen images by: their loss is lowest then."""
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
        """Score every strength on images that the head did not see, all folds side by side.

        The folds keep the groups of the targets whole; see `split_folds`.
        Features are standardised once, over all folds. The strongest is tried first; ``enough``
        is asked about the losses [S,N] so far, and ends the walk.
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
        """Return outputs float32[M,K] of images by the finished head fitted without their fold.

        ``rows`` int[M] are divided into folds, all by default; the others are in no fold, and every
        head is fitted to them. ``l2`` None: the heads are class means.
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
        """Yield each strength with the heads fitted without the rows of each fold."""
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
    """The loss of a fine-tuning, summed over images so that a batch may be computed in parts."""

    @abstractmethod
    def encode(self, values: np.ndarray) -> Tensor:
        """Return the values of some targets as a tensor [B,...] that mixup may blend."""

    @abstractmethod
    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the weighted losses of outputs float32[B,K]."""

    def weight(self, targets: Tensor) -> Tensor:
        """Return the sum of the weights of encoded targets [B,...]."""
        return torch.tensor(float(len(targets)), device=targets.device)

    def move(self, targets: Tensor, maps: Tensor) -> Tensor:
        """Return encoded targets [B,...] of images that were changed by ``maps`` [B,2,3].

        A map leads from the new image to where its pixels were, in coordinates from -1 to 1.
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
