"""The axes in which a head is solved, and the work that a solution takes."""

import dataclasses

import numpy as np
import pytest
import torch

from rootstock.errors import TrainingError
from rootstock.heads import solver
from rootstock.heads.solver import Axes, count_steps, walk_path
from rootstock.tasks.single_label.learning import SoftmaxLoss
from tests.tasks.classes import fit_mlp_head


def features(n_rows, n_columns):
    rows = torch.randn(n_rows, n_columns, generator=torch.Generator().manual_seed(0))
    return rows * torch.linspace(0.1, 3, n_columns)


@pytest.mark.parametrize(("shape", "rank"), [((200, 12), 12), ((15, 90), 15)], ids=["tall", "wide"])
def test_features_are_rotated_without_losing_axes(shape, rank):
    given = features(*shape)
    axes = Axes.of(given)
    assert axes.rows.shape == (shape[0], rank + 1)
    assert (axes.rows[:, -1] == 1).all()
    torch.testing.assert_close(axes.turn.T @ axes.turn, torch.eye(rank), atol=1e-4, rtol=0)
    torch.testing.assert_close(axes.rows[:, :-1] @ axes.turn.T, given, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(axes.spread, axes.rows.square().mean(dim=0))
    scatter = axes.rows[:, :-1].T @ axes.rows[:, :-1]
    assert (scatter - torch.diag(scatter.diag())).abs().max() < 1e-3 * scatter.max()


@dataclasses.dataclass
class CountedLoss:
    """A loss that counts its calls."""

    inner: SoftmaxLoss
    calls: int = 0

    @property
    def n_outputs(self):
        return self.inner.n_outputs

    @property
    def curvature(self):
        return self.inner.curvature

    def value_and_residual(self, outputs, share):
        self.calls += 1
        return self.inner.value_and_residual(outputs, share)


def solve(weights, strengths=(10.0, 1.0, 0.1, 0.01)):
    labels = torch.arange(200) % 3
    rows = features(200, 12) + 2 * torch.eye(12)[labels]
    loss = CountedLoss(SoftmaxLoss(labels, 3))
    path = list(walk_path(Axes.of(rows), loss, weights, strengths=strengths))
    return path, loss.calls


def test_several_weightings_take_few_extra_steps():
    random = torch.Generator().manual_seed(1)
    weights = torch.rand(5, 200, generator=random)
    together, calls = solve(weights)
    alone = [solve(weights[number : number + 1]) for number in range(5)]
    assert calls < 1.5 * max(count for _, count in alone)
    for number, (path, _) in enumerate(alone):
        for (_, one), (_, several) in zip(path, together, strict=True):
            torch.testing.assert_close(several[number], one[0], atol=1e-2, rtol=1e-2)


def test_many_outputs_need_fewer_steps_with_a_metric(monkeypatch):
    labels = torch.arange(900) % 300
    centres = torch.randn(300, 64, generator=torch.Generator().manual_seed(2))
    rows = features(900, 64) + centres[labels]

    def solve_many():
        loss = CountedLoss(SoftmaxLoss(labels, 300))
        ((_, point),) = walk_path(Axes.of(rows), loss, torch.ones(1, 900), strengths=[0.01])
        return point, loss.calls

    own, calls = solve_many()
    monkeypatch.setattr(solver, "FEW_OUTPUTS", 300)
    bound, calls_from_bound = solve_many()
    assert calls < calls_from_bound
    torch.testing.assert_close(own, bound, atol=2e-2, rtol=2e-2)


def test_the_memory_of_steps_is_bounded():
    """Thirty steps of 2,000 outputs in five folds took 3 GB."""
    many = torch.empty(5, 1281, 2000, device="meta")
    assert count_steps(torch.empty(5, 1281, 10)) == solver.MEMORY_STEPS
    assert count_steps(many) == solver.MIN_MEMORY_STEPS
    bytes_of_two = 2 * many.numel() * 4
    assert count_steps(many[:1, :, :1000]) * bytes_of_two / 10 <= solver.MEMORY_BYTES


def test_hidden_layer_penalty_is_half_squared_norm():
    random = np.random.default_rng(0)
    labels = np.arange(120) % 3
    given = (random.normal(size=(120, 4)) + 2 * np.eye(4)[labels]).astype(np.float32)
    head = fit_mlp_head(given, labels, hidden=6, l2=0.05, n_classes=3)
    hidden = np.maximum(head.inner.outputs(given), 0)
    logits = head.outer.outputs(hidden)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    slope = (shares - np.eye(3)[labels]).T @ hidden / len(labels)
    # At the best point the loss falls as fast along the weights as the penalty rises
    pull = -(slope * head.outer.weights).sum() / (0.05 * np.square(head.outer.weights).sum())
    assert pull == pytest.approx(1.0, abs=0.15)


def test_non_finite_hidden_layer_loss_is_an_error():
    given = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    with pytest.raises(TrainingError, match="hidden layer is not finite"):
        fit_mlp_head(given, np.arange(30) % 2, hidden=4, l2=float("nan"), n_classes=2)
