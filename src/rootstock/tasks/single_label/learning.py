"""Training of a classifier: exact softmax regression on features, cross-entropy in fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rootstock.errors import TrainingError
from rootstock.heads.linear import Head, LinearHead, MlpHead
from rootstock.heads.prototypes import fit_prototypes
from rootstock.tasks.learning import Coded, HeadSolver, TargetLoss
from rootstock.tasks.single_label.measures import accuracy, fit_temperature, log_losses, softmax
from rootstock.tasks.targets import Targets

UNSEEN_BIAS = -1e4
"""Bias of a class without training images: it is never predicted."""


@dataclass(frozen=True)
class SoftmaxLoss:
    """The log-loss of N rows whose classes are ``labels`` int64[N]; an `OutputLoss`."""

    labels: Tensor
    n_outputs: int
    curvature: float = 0.5
    """Boehning's bound on the softmax Hessian."""

    def value_and_residual(self, outputs: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """See `OutputLoss`."""
        log_probabilities = outputs.log_softmax(dim=2)
        own = self.labels.view(-1, 1, 1).expand(-1, outputs.shape[1], 1)
        picked = log_probabilities.gather(2, own).squeeze(2)
        loss = -(picked.double() * share.T).sum(dim=0)
        residual = log_probabilities.exp_()
        rows = torch.arange(len(self.labels), device=self.labels.device)
        residual[rows, :, self.labels] -= 1.0
        residual *= share.T.unsqueeze(2).to(residual.dtype)
        return loss, residual


@dataclass(frozen=True)
class SoftmaxSolver(HeadSolver):
    """Multinomial logistic regression; the penalty treats two classes as one weight vector."""

    has_prototypes: ClassVar[bool] = True
    weighting: str = "none"

    def code(self, targets: Targets, device: torch.device) -> Coded:
        """See `HeadSolver`. Classes without images are left out, and added afterwards."""
        present, numbers = np.unique(targets.values, return_inverse=True)
        if len(present) < 2:
            raise TrainingError(
                f"a head needs images of at least two classes, but there are {len(present)}",
                hint="check the classes of the training split with `rootstock check`",
            )
        weights = torch.ones(len(numbers), device=device)
        if self.weighting.startswith("balanced"):
            weights = balanced_weights(numbers, len(present), device)[
                torch.from_numpy(numbers).to(device)
            ]
        return Coded(
            SoftmaxLoss(torch.from_numpy(numbers).to(device), len(present)),
            weights,
            penalty_scale=2.0 if len(present) == 2 else 1.0,
            complete=lambda head: _complete(head, present, len(targets.names)),
        )

    def measure(self, outputs: np.ndarray, targets: Targets) -> tuple[float, np.ndarray]:
        """Return the accuracy, and each image's log-loss."""
        losses = log_losses(softmax(outputs), targets.values)
        return accuracy(outputs.argmax(axis=1), targets.values), losses

    def target_loss(self, targets: Targets, device: torch.device) -> CrossEntropy:
        """See `HeadSolver`."""
        balanced = "balanced" if self.weighting.startswith("balanced") else "none"
        return CrossEntropy.of(targets, weighting=balanced, label_smoothing=0.0, device=device)

    def fit_prototypes(self, features: np.ndarray, targets: Targets) -> LinearHead:
        """See `HeadSolver`. A class without images is never predicted."""
        present, numbers = np.unique(targets.values, return_inverse=True)
        return _complete(fit_prototypes(features, numbers), present, len(targets.names))

    def best_scale(self, outputs: np.ndarray, targets: Targets) -> float:
        """Return the inverse of the temperature."""
        return 1.0 / fit_temperature(outputs, targets.values)

    def finish(self, head: Head, targets: Targets) -> Head:
        """Adjust the logits if that is the weighting."""
        if self.weighting != "logit_adjusted":
            return head
        return adjust_logits(head, targets.values, n_classes=len(targets.names))


def _complete(head: LinearHead, present: np.ndarray, n_classes: int) -> LinearHead:
    weights = np.zeros((n_classes, head.weights.shape[1]), np.float32)
    bias = np.full(n_classes, UNSEEN_BIAS, np.float32)
    weights[present], bias[present] = head.weights, head.bias
    return LinearHead(weights, bias)


@dataclass(frozen=True)
class CrossEntropy(TargetLoss):
    """Cross-entropy with class weights [K] or None, and an offset [K] of the logits."""

    n_classes: int
    weights: Tensor | None
    offset: Tensor
    label_smoothing: float

    @classmethod
    def of(
        cls, targets: Targets, *, weighting: str, label_smoothing: float, device: torch.device
    ) -> CrossEntropy:
        """Return the loss for training on ``targets``."""
        n_classes = len(targets.names)
        weights, shares = None, np.zeros(n_classes, np.float32)
        if weighting == "balanced":
            weights = balanced_weights(targets.values, n_classes, device)
        if weighting == "logit_adjusted":
            shares = log_shares(targets.values, n_classes=n_classes)
        return cls(n_classes, weights, torch.from_numpy(shares).to(device), label_smoothing)

    def encode(self, values: np.ndarray) -> Tensor:
        """Return one-hot rows float32[B,K] of class numbers int64[B]."""
        return F.one_hot(torch.from_numpy(values).to(self.offset.device), self.n_classes).float()

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `TargetLoss`."""
        return F.cross_entropy(
            outputs.float() + self.offset,
            targets,
            weight=self.weights,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )

    def weight(self, targets: Tensor) -> Tensor:
        """See `TargetLoss`."""
        return targets.sum() if self.weights is None else (targets @ self.weights).sum()


def balanced_weights(labels: np.ndarray, n_classes: int, device: torch.device) -> Tensor:
    """Return weights float32[K] that give every class of int[N] the same sum: N / (K count)."""
    counts = np.maximum(np.bincount(labels, minlength=n_classes), 1)
    return torch.tensor(counts.mean() / counts, dtype=torch.float32, device=device)


def adjust_logits(head: Head, labels: np.ndarray, *, n_classes: int) -> Head:
    """Return the head as if all classes were equally frequent in ``labels`` int[N].

    By Bayes' rule the logits of a classifier contain the log of each class' share of the training
    images; without it no class is preferred for being frequent. Weighting a few images a
    hundredfold has the same aim, but overfits them. Menon et al. 2021, arXiv:2007.07314.
    """
    if isinstance(head, MlpHead):
        outer = adjust_logits(head.outer, labels, n_classes=n_classes)
        assert isinstance(outer, LinearHead)
        return MlpHead(head.inner, outer)
    assert isinstance(head, LinearHead)
    shares = log_shares(labels, n_classes=n_classes)
    return LinearHead(head.weights, (head.bias - shares).astype(np.float32))


def log_shares(labels: np.ndarray, *, n_classes: int) -> np.ndarray:
    """Return float32[K]: the log of each class' share of int[N], minus the mean; 0 for no image."""
    counts = np.bincount(labels, minlength=n_classes)
    logs = np.log(np.maximum(counts, 1))
    return np.where(counts > 0, logs - logs[counts > 0].mean(), 0.0).astype(np.float32)
