"""Exact ridge regression, with the strength that best predicts left-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rootstock.heads.linear import CPU, HeadProblem, LinearHead
from rootstock.heads.solver import MAX_AXES

PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Penalties to try, as shares of the features' sum of variances."""


@dataclass(frozen=True)
class SquaredLoss:
    """Half the squared error of N rows with values float[N,M]; an `OutputLoss`."""

    values: Tensor
    curvature: float = 1.0

    @property
    def n_outputs(self) -> int:
        """The number of values M."""
        return self.values.shape[1]

    def value_and_residual(self, outputs: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """See `OutputLoss`."""
        residual = outputs - self.values.unsqueeze(1)
        loss = 0.5 * (residual.double().square().sum(dim=2) * share.T).sum(dim=0)
        return loss, residual * share.T.unsqueeze(2).to(residual.dtype)


def fit_ridge(
    features: np.ndarray,
    values: np.ndarray,
    *,
    penalties: Sequence[float] = PENALTIES,
    device: torch.device = CPU,
) -> LinearHead:
    """Return the linear head that predicts values float[N,M] from features [N,D].

    Raises:
        TrainingError: the features are not finite.
    """
    # With more rows, finding the axes takes longer than solving: some rows choose the penalty
    step = -(-len(features) // MAX_AXES)
    problem = HeadProblem.of(features[::step], device)
    penalty, solution = _choose_penalty(problem, values[::step], penalties)
    if step > 1:
        problem = HeadProblem.of(features, device)
        targets = torch.from_numpy(values).to(problem.axes.rows)
        weights = torch.ones(1, len(targets), device=device)
        ((_, (head,)),) = problem.walk(SquaredLoss(targets), weights, [penalty / len(targets)])
        return head
    (head,) = problem.unstandardise(solution[None])
    return head


def _choose_penalty(
    problem: HeadProblem, values: np.ndarray, penalties: Sequence[float]
) -> tuple[float, Tensor]:
    """Return the best penalty of the sum of squares, and its solution [R+1,M].

    Along the axes of their scatter the features are solved for every penalty at once, and the
    error of each row with the head fitted without it is known (Allen 1974, the PRESS statistic).
    """
    rows = problem.axes.rows[:, :-1].double()
    given = torch.from_numpy(values).to(rows)
    centre = given.mean(dim=0)
    targets = given - centre
    spread = rows.square().sum(dim=0)
    products = rows.T @ targets
    best, chosen, lowest = products, 0.0, torch.inf
    for share in penalties:
        penalty = float(share * spread.sum() / len(rows))
        inverse = 1.0 / (spread + penalty)
        solution = inverse[:, None] * products
        leverage = 1.0 / len(rows) + rows.square() @ inverse
        missed = (targets - rows @ solution) / (1.0 - leverage).clamp(min=1e-6)[:, None]
        error = float(missed.square().mean())
        if error < lowest:
            best, chosen, lowest = solution, penalty, error
    return chosen, torch.cat([best, centre[None]])
