"""Training of several labels: an exact logistic regression per label, all at the same time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rootstock.errors import TrainingError
from rootstock.heads.linear import LinearHead
from rootstock.tasks.learning import Coded, HeadSolver, TargetLoss, log_mean
from rootstock.tasks.multi_label.measures import (
    label_precisions,
    log_losses,
    mean_over_labels,
    sigmoid,
)
from rootstock.tasks.targets import Targets


@dataclass(frozen=True)
class LogisticLoss:
    """The log-loss of N rows with labels ``present`` float[N,K], summed; an `OutputLoss`."""

    present: Tensor
    curvature: float = 0.25

    @property
    def n_outputs(self) -> int:
        """The number of labels K."""
        return self.present.shape[1]

    def value_and_residual(self, outputs: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """See `OutputLoss`."""
        truth = self.present.unsqueeze(1)
        losses = (F.softplus(outputs) - truth * outputs).sum(dim=2)
        residual = (outputs.sigmoid() - truth) * share.T.unsqueeze(2).to(outputs.dtype)
        return (losses.double() * share.T).sum(dim=0), residual


@dataclass(frozen=True)
class LogisticSolver(HeadSolver):
    """One logistic regression per label, with one strength."""

    def code(self, targets: Targets, device: torch.device) -> Coded:
        """See `HeadSolver`. A label that all rows have, or none, gets only a bias."""
        counts = targets.values.sum(axis=0)
        varies = (counts > 0) & (counts < len(targets))
        if not varies.any():
            raise TrainingError(
                "a head needs a label that some images have and others lack",
                hint="check the labels of the training split with `rootstock check`",
            )
        present = torch.from_numpy(targets.values[:, varies]).to(device)
        biases = [
            math.log((count + 0.5) / (len(targets) - count + 0.5)) for count in counts.tolist()
        ]
        return Coded(
            LogisticLoss(present),
            torch.ones(len(targets), device=device),
            complete=lambda head: _complete(head, varies, np.array(biases, np.float32)),
        )

    def measure(self, outputs: np.ndarray, targets: Targets) -> tuple[float, np.ndarray]:
        """Return the mean average precision, and each image's log-loss."""
        losses = log_losses(sigmoid(outputs), targets.values)
        return float(mean_over_labels(label_precisions(outputs, targets.values))[0]), losses

    def target_loss(self, targets: Targets, device: torch.device) -> BinaryLoss:
        """See `HeadSolver`."""
        return BinaryLoss(device, scale=1.0)


def _complete(head: LinearHead, varies: np.ndarray, biases: np.ndarray) -> LinearHead:
    weights = np.zeros((len(varies), head.weights.shape[1]), np.float32)
    bias = biases.copy()
    weights[varies], bias[varies] = head.weights, head.bias
    return LinearHead(weights, bias)


@dataclass(frozen=True)
class BinaryLoss(TargetLoss):
    """The log-loss of each label times ``scale``, summed; labels may be smoothed."""

    device: torch.device
    scale: float
    label_smoothing: float = 0.0

    def encode(self, values: np.ndarray) -> Tensor:
        """Return labels float32[B,K]."""
        smooth = self.label_smoothing
        return torch.from_numpy(values * (1 - smooth) + 0.5 * smooth).float().to(self.device)

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `TargetLoss`."""
        losses = F.binary_cross_entropy_with_logits(outputs.float(), targets, reduction="sum")
        return self.scale * losses


def average_labels(outputs: Tensor) -> Tensor:
    """Return the logits [N,K] of the mean probabilities of labels, for logits [n,N,K]."""
    return log_mean(-F.softplus(-outputs)) - log_mean(-F.softplus(outputs))
