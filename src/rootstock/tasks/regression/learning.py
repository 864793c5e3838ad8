"""Training for numbers: ridge regression on features, Huber's loss in fine-tuning.

Outputs are standardised by mean and standard deviation of the training targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rootstock.tasks.learning import Coded, HeadSolver, TargetLoss
from rootstock.tasks.regression.measures import explained_share, huber_losses, standardise
from rootstock.tasks.targets import Targets


@dataclass(frozen=True)
class SquaredLoss:
    """Half the squared error of N rows with ``values`` float[N,K]; an `OutputLoss`."""

    values: Tensor
    curvature: float = 1.0

    @property
    def n_outputs(self) -> int:
        """The number of numbers K."""
        return self.values.shape[1]

    def value_and_residual(self, outputs: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """See `OutputLoss`."""
        residual = outputs - self.values.unsqueeze(1)
        loss = 0.5 * (residual.double().square().sum(dim=2) * share.T).sum(dim=0)
        return loss, residual * share.T.unsqueeze(2).to(residual.dtype)


PENALTY_SCALE = 100.0
"""Factor of the penalty for a number, compared with a class, at the same strength.

A squared loss has up to four times the curvature of a log-loss, and noise in numbers needs more.
"""


@dataclass(frozen=True)
class RidgeSolver(HeadSolver):
    """Ridge regression of each number, with one strength."""

    def code(self, targets: Targets, device: torch.device) -> Coded:
        """See `HeadSolver`."""
        values = torch.from_numpy(standardise(targets)).to(device)
        weights = torch.ones(len(targets), device=device)
        return Coded(SquaredLoss(values), weights, penalty_scale=PENALTY_SCALE)

    def measure(self, outputs: np.ndarray, targets: Targets) -> tuple[float, np.ndarray]:
        """Return the explained share of the variance, and each image's Huber loss."""
        losses = huber_losses(outputs, targets)
        return max(0.0, explained_share(outputs, standardise(targets))), losses

    def target_loss(self, targets: Targets, device: torch.device) -> HuberLoss:
        """See `HeadSolver`."""
        return HuberLoss(targets, device)


class HuberLoss(TargetLoss):
    """Huber's loss (1964) of standardised errors, the mean over the numbers."""

    def __init__(self, targets: Targets, device: torch.device) -> None:
        self._targets = targets
        self._device = device

    def encode(self, values: np.ndarray) -> Tensor:
        """Return standardised values float32[B,K]."""
        return torch.from_numpy(standardise(self._targets, values)).to(self._device)

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See `TargetLoss`."""
        return F.huber_loss(outputs.float(), targets, reduction="sum") / outputs.shape[1]
