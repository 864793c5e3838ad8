"""A second task in one file: a number per image. It proves that no other code assumes a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from rootstock.errors import DataError
from rootstock.metrics import bootstrap_interval
from rootstock.tasks.answer import Answer
from rootstock.tasks.comparison import Comparison, decide_gate
from rootstock.tasks.learning import Coded, HeadSolver, TargetLoss
from rootstock.tasks.task import Task

BINS = 3


@dataclass(frozen=True, kw_only=True)
class NumberAnswer(Answer):
    """The number that the model reads from an image."""

    value: float | None = None

    @property
    def text(self):
        return "" if self.value is None else f"{self.value:.3f}"

    def columns(self):
        return {"value": self.value, "unknown": self.unknown}


def r2(outputs, values):
    """Return the share of the variance that is explained, at least 0."""
    missed = np.square(outputs - values).sum()
    return max(0.0, 1.0 - float(missed / np.square(values - values.mean()).sum()))


@dataclass(frozen=True)
class SquaredLoss:
    values: torch.Tensor
    n_outputs: int = 1
    curvature: float = 1.0

    def value_and_residual(self, outputs, share):
        residual = outputs - self.values.view(-1, 1, 1)
        loss = 0.5 * (residual.double().square().sum(dim=2) * share.T).sum(dim=0)
        return loss, residual * share.T.unsqueeze(2)


class SquaredTargetLoss(TargetLoss):
    def encode(self, values):
        return torch.from_numpy(values)

    def total(self, outputs, targets):
        return (outputs - targets).square().sum()


class RidgeSolver(HeadSolver):
    def code(self, targets, device):
        values = torch.from_numpy(targets.values[:, 0]).to(device)
        return Coded(SquaredLoss(values), torch.ones(len(targets), device=device))

    def measure(self, outputs, targets):
        losses = np.square(outputs - targets.values).sum(axis=1)
        return r2(outputs, targets.values), losses.astype(float)

    def target_loss(self, targets, device):
        return SquaredTargetLoss()


class Brightness(Task):
    name: ClassVar[str] = "brightness"
    columns: ClassVar[tuple[str, ...]] = ("target",)
    gate_metrics: ClassVar[tuple[str, ...]] = ("r2",)

    def read_names(self, texts):
        return ("brightness",)

    def parse(self, texts, names):
        return np.array([[float(text)] for text in texts], np.float32)

    def strata(self, texts):
        values = np.array([float(text) for text in texts])
        borders = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
        return [f"bin {number}" for number in np.searchsorted(borders, values)]

    def check_texts(self, root, texts):
        for text in texts:
            try:
                float(text)
            except ValueError:
                raise DataError(f"{root}: {text!r} is not a number") from None

    def head(self, weighting="none"):
        return RidgeSolver()

    def loss(self, targets, *, weighting, label_smoothing, device):
        return SquaredTargetLoss()

    def losses(self, outputs, targets, calibration=None):
        return np.square(outputs - targets.values).sum(axis=1)

    def validate(self, outputs, targets):
        return {
            "val_loss": float(self.losses(outputs, targets).mean()),
            "val_r2": r2(outputs, targets.values),
        }

    def calibrate(self, outputs, targets):
        return {}

    def decide(self, outputs, calibration):
        return outputs

    def answer(self, decision, names, options, reference):
        return NumberAnswer(value=float(decision[0]))

    def metrics(self, decisions, targets):
        errors = np.abs(decisions - targets.values)
        return {"r2": r2(decisions, targets.values), "mae": float(errors.mean())}

    def prediction_rows(self, evidence):
        rows = zip(evidence.paths, evidence.targets.values, evidence.decisions, strict=True)
        return [
            ("path", "actual", "predicted"),
            *((path, float(true[0]), float(said[0])) for path, true, said in rows),
        ]

    def compare(self, champion, challenger, targets, *, metric, rule, min_gain):
        scores = [r2(decisions, targets.values) for decisions in (champion, challenger)]

        def gain(rows):
            one, two = (r2(said[rows], targets.values[rows]) for said in (champion, challenger))
            return two - one

        interval = bootstrap_interval(gain, strata=np.zeros(len(targets), int))
        promote, reason = decide_gate(
            metric, *scores, interval=interval, rule=rule, min_gain=min_gain, count=len(targets)
        )
        return Comparison(metric, *scores, len(targets), 0, 0, None, promote, reason, interval)
