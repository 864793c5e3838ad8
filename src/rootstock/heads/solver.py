"""Exact linear heads, full-batch, for a whole path of L2 strengths.

Several weightings of the rows, such as the folds of a cross-validation, are solved at the same
time: one product with the features serves all of them. The features are first rotated to the axes
of their scatter, where a bound on the loss's curvature is diagonal (for softmax: D. Boehning 1992,
"Multinomial logistic regression algorithm"). It is the initial metric of L-BFGS (Nocedal 1980),
which therefore needs few steps at any strength. Strengths are solved from strong to weak, each
from the previous solution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear

MEMORY_STEPS = 30
"""Remembered steps, also from one strength to the next: they are cheap next to a product."""
MIN_MEMORY_STEPS, MEMORY_BYTES = 6, 2**28
"""Fewer steps are remembered if they take more bytes than this, as with many outputs."""
FEW_OUTPUTS = 100
"""Up to this many outputs the bound itself is the starting metric."""
MAX_STEPS = 300
TOLERANCE = 5e-6
"""Norm of the gradient in the metric of the bound; a loss is typically about 1."""
MAX_AXES = 2048
"""More axes than this cost more to find than they save; then the features are the axes."""
_MIN_DECREASE_SHARE = 1e-4
_MAX_HALVINGS = 12

History = list[tuple[Tensor, Tensor, Tensor]]
"""Steps, their changes of slope, and the inverse of the product of the two."""


class OutputLoss(Protocol):
    """The loss of the outputs of N rows: convex, with bounded curvature."""

    @property
    def n_outputs(self) -> int:
        """The number of outputs K."""
        ...

    @property
    def curvature(self) -> float:
        """A bound of the second derivative with respect to the outputs of a row."""
        ...

    def value_and_residual(self, outputs: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss float64[P] of outputs [N,P,K] and its derivative [N,P,K].

        ``share`` float[P,N] weights the rows; each of its rows sums to 1.
        """
        ...


@dataclass(frozen=True)
class Axes:
    """Rows [N,R+1] along the axes of their scatter, and a column of ones; ``turn`` [D,R] leads
    back.

    ``spread`` [R+1]: mean square of each column. ``turn`` None: the features are the axes.
    """

    rows: Tensor
    turn: Tensor | None
    spread: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Axes:
        """Return the axes of centred, scaled features [N,D]."""
        n_rows, n_columns = features.shape
        turn = None
        if min(n_rows, n_columns) <= MAX_AXES:
            turn = _principal_axes(features)
        n_axes = n_columns if turn is None else turn.shape[1]
        rows = features.new_ones(n_rows, n_axes + 1)
        if turn is None:
            rows[:, :-1] = features
        else:
            torch.mm(features, turn, out=rows[:, :-1])
        # The norm takes no copy of all rows to square them
        return cls(rows, turn, torch.linalg.vector_norm(rows, dim=0).square() / n_rows)

    def weights(self, solution: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights [P,K,D] for the features, and biases [P,K], of a solution [P,R+1,K]."""
        inner = solution[:, :-1]
        back = inner if self.turn is None else self.turn.to(inner.dtype) @ inner
        return back.transpose(1, 2), solution[:, -1]


def walk_path(
    axes: Axes,
    loss: OutputLoss,
    row_weights: Tensor,
    *,
    strengths: Sequence[float],
    tolerance: float = TOLERANCE,
) -> Iterator[tuple[float, Tensor]]:
    """Yield each strength with its optimum, a tensor [P,R+1,K], the strongest first.

    Weaker strengths take longer; a caller that has seen enough can stop.

    ``row_weights`` float[P,N] are P weightings solved at the same time; ``tolerance`` is the norm
    of the gradient at which a solution is accepted. A strength multiplies half the squared norm of
    the weights, without the biases, and is added to the mean loss.
    """
    problem = _Problem(axes.rows, loss, row_weights)
    point = axes.rows.new_zeros(len(row_weights), axes.rows.shape[1], loss.n_outputs)
    history: History = []
    before = 0.0
    for strength in sorted(set(strengths), reverse=True):
        # The curvature seen so far remains valid, except for the part that the penalty adds
        penalised = torch.ones_like(axes.spread)
        penalised[-1] = 0.0
        penalised = penalised.unsqueeze(1)
        history = _repenalised(history, (strength - before) * penalised)
        before = strength
        metric = loss.curvature * axes.spread.unsqueeze(1) + strength * penalised
        point, history = _minimise(
            problem,
            point,
            history,
            penalty=strength * penalised,
            metric=metric,
            tolerance=tolerance,
        )
        yield strength, point


def _repenalised(history: History, more: Tensor) -> History:
    """Return the same steps with their changes of slope under another penalty."""
    renewed = []
    for step, change, _ in history:
        change = change + more * step
        renewed.append((step, change, _inverse(step, change)))
    return renewed


def _inverse(step: Tensor, change: Tensor) -> Tensor:
    curvature = _dot(step, change)
    return torch.where(curvature > 0, 1.0 / curvature.clamp(min=1e-30), 0.0)


@dataclass(frozen=True)
class _Problem:
    rows: Tensor
    loss: OutputLoss
    row_weights: Tensor

    def value_and_slope(self, point: Tensor, penalty: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss [P] and its gradient [P,R+1,K]."""
        count, width, n_outputs = point.shape
        flat = point.transpose(1, 2).reshape(count * n_outputs, width)
        outputs = linear(self.rows, flat).view(-1, count, n_outputs)
        share = self.row_weights / self.row_weights.sum(dim=1, keepdim=True)
        loss, residual = self.loss.value_and_residual(outputs, share)
        # With up to eleven columns `rows.T @ residual` takes up to twelve times as long
        slope = residual.view(-1, count * n_outputs).T.contiguous() @ self.rows
        slope = slope.view(count, n_outputs, width).transpose(1, 2).contiguous()
        weighted = penalty * point
        loss = loss + 0.5 * (weighted.double() * point).sum(dim=(1, 2))
        return loss, slope + weighted


def _minimise(
    problem: _Problem,
    point: Tensor,
    history: History,
    *,
    penalty: Tensor,
    metric: Tensor,
    tolerance: float,
) -> tuple[Tensor, History]:
    value, slope = problem.value_and_slope(point, penalty)
    n_outputs = point.shape[2]
    start = metric
    if n_outputs > FEW_OUTPUTS:
        # The bound holds for two outputs; at even odds of K outputs softmax has 2/K of it.
        start = (metric - penalty) * (2.0 / n_outputs) + penalty
    n_steps = count_steps(point)
    for _ in range(MAX_STEPS):
        going = _dot(slope, slope / metric).sqrt() > tolerance
        if not going.any():
            break
        direction = _direction(slope, history, start) * going.view(-1, 1, 1)
        moved, new_value, new_slope = _search_line(
            problem, point, value, slope, direction, penalty=penalty
        )
        step, change = moved - point, new_slope - slope
        if not step.any():
            break  # as good as the precision allows
        history = [*history[1 - n_steps :], (step, change, _inverse(step, change))]
        point, value, slope = moved, new_value, new_slope
    return point, history


def count_steps(point: Tensor) -> int:
    """Return how many steps of the size of ``point`` are remembered, each with its change."""
    room = MEMORY_BYTES // (2 * point.numel() * point.element_size())
    return max(MIN_MEMORY_STEPS, min(MEMORY_STEPS, room))


def _direction(slope: Tensor, history: History, metric: Tensor) -> Tensor:
    """Run the two loops of L-BFGS, for all problems at once."""
    left = slope.clone()
    factors = []
    for step, change, inverse in reversed(history):
        factor = inverse * _dot(step, left)
        left -= factor.view(-1, 1, 1) * change
        factors.append(factor)
    left /= metric
    if history:
        step, change, inverse = history[-1]
        length = _dot(change, change / metric) * inverse
        scale = torch.where(length > 0, 1.0 / length.clamp(min=1e-30), 1.0)
        left *= scale.view(-1, 1, 1)
    for (step, change, inverse), factor in zip(history, reversed(factors), strict=True):
        left += (factor - inverse * _dot(change, left)).view(-1, 1, 1) * step
    return -left


def _search_line(
    problem: _Problem,
    point: Tensor,
    value: Tensor,
    slope: Tensor,
    direction: Tensor,
    *,
    penalty: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Halve each problem's step until its loss falls enough; otherwise do not move it."""
    fall = _dot(slope, direction).double()
    size = torch.ones_like(value)
    for _ in range(_MAX_HALVINGS):
        moved = point + size.view(-1, 1, 1).to(point.dtype) * direction
        new_value, new_slope = problem.value_and_slope(moved, penalty)
        # Losses are sums of float32 terms, so a rise below their rounding does not count.
        poor = new_value > value + _MIN_DECREASE_SHARE * size * fall + 1e-7 * value.abs()
        if not poor.any():
            return moved, new_value, new_slope
        size = torch.where(poor, size / 2, size)
    size = torch.where(poor, 0.0, size)
    moved = point + size.view(-1, 1, 1).to(point.dtype) * direction
    return moved, *problem.value_and_slope(moved, penalty)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(dim=(1, 2))


def _principal_axes(features: Tensor) -> Tensor:
    """Return the orthonormal eigenvectors [D,R], R = rank, of the smaller scatter matrix."""
    n_rows, n_columns = features.shape
    if n_columns <= n_rows:
        return torch.linalg.eigh(features.T @ features)[1]
    values, vectors = torch.linalg.eigh((features @ features.T).double())
    significant = values > values[-1] * 1e-9
    return ((features.T.double() @ vectors[:, significant]) / values[significant].sqrt()).to(
        features.dtype
    )
