"""Measures of several labels per image: arrays in, numbers out.

``probabilities`` and ``present`` are [N,K]; ``weights`` float[R,N] count each image in R draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LOWEST = 1e-12
ECE_BINS = 15


def sigmoid(outputs: np.ndarray) -> np.ndarray:
    """Return probabilities of outputs, without overflow."""
    half = 0.5 * np.tanh(0.5 * np.asarray(outputs, np.float64))
    return half + 0.5


def log_losses(probabilities: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return each image's negative log-likelihood in nats, the mean over labels: float64[N]."""
    right = np.where(present > 0, probabilities, 1 - probabilities)
    return -np.log(np.maximum(right, _LOWEST)).mean(axis=1)


def average_precision(scores: np.ndarray, present: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the average precision of one label in each draw, float64[R]; NaN without positives.

    The area below the precision at each positive; ties count together. ``scores`` and ``present``
    are [N].
    """
    order = np.argsort(-scores, kind="stable")
    sorted_scores, drawn = scores[order], weights[:, order].astype(np.float64)
    hits = np.cumsum(drawn * (present[order] > 0), axis=1)
    seen = np.cumsum(drawn, axis=1)
    # Images with the same score are one step: their order has no meaning.
    ends = np.flatnonzero(np.append(np.diff(sorted_scores) != 0, True))
    hits, seen = hits[:, ends], seen[:, ends]
    gained = np.diff(hits, axis=1, prepend=0)
    precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
    total = hits[:, -1]
    area = (gained * precision).sum(axis=1)
    return np.divide(area, total, out=np.full_like(area, np.nan), where=total > 0)


def label_precisions(
    probabilities: np.ndarray, present: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return the average precision of each label, float64[R,K]; see `average_precision`."""
    weights = np.ones((1, len(present))) if weights is None else weights
    columns = [
        average_precision(probabilities[:, k], present[:, k], weights)
        for k in range(present.shape[1])
    ]
    return np.stack(columns, axis=1)


def mean_over_labels(values: np.ndarray) -> np.ndarray:
    """Return the mean of [R,K] over the labels with a value; 0 if there are none."""
    known = np.isfinite(values)
    return np.where(known, values, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


@dataclass(frozen=True)
class Counts:
    """Counts float64[R,K] of right, wrong and missed labels in R draws."""

    right: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray

    @classmethod
    def of(
        cls, chosen: np.ndarray, present: np.ndarray, weights: np.ndarray | None = None
    ) -> Counts:
        """Count decisions bool[N,K]."""
        weights = np.ones((1, len(present))) if weights is None else weights
        yes, true = chosen > 0, present > 0
        parts = (yes & true, yes & ~true, ~yes & true)
        return cls(*(weights.astype(np.float64) @ part.astype(np.float64) for part in parts))

    @property
    def f1(self) -> np.ndarray:
        """F1 of each label, [R,K]; 0/0 counts as 0."""
        return _f1(self.right, self.wrong, self.missed)

    @property
    def micro_f1(self) -> np.ndarray:
        """F1 of all labels together, [R]."""
        return _f1(*(part.sum(axis=1) for part in (self.right, self.wrong, self.missed)))

    @property
    def macro_f1(self) -> np.ndarray:
        """Mean F1 of the labels that at least one image has, [R]."""
        known = self.right + self.missed > 0
        return np.where(known, self.f1, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)

    @property
    def precision(self) -> np.ndarray:
        """Precision of each label, [R,K]; 0/0 counts as 0."""
        named = self.right + self.wrong
        return np.divide(self.right, named, out=np.zeros_like(named), where=named > 0)

    @property
    def recall(self) -> np.ndarray:
        """Recall of each label, [R,K]; 0/0 counts as 0."""
        true = self.right + self.missed
        return np.divide(self.right, true, out=np.zeros_like(true), where=true > 0)


def exact_match(
    chosen: np.ndarray, present: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return the share of images whose labels are all right, float64[R]."""
    weights = np.ones((1, len(present))) if weights is None else weights
    right = ((chosen > 0) == (present > 0)).all(axis=1)
    share: np.ndarray = weights @ right / weights.sum(axis=1)
    return share


def ece(probabilities: np.ndarray, present: np.ndarray) -> float:
    """Return the calibration error of each label over equal bins, the mean over labels."""
    places = np.clip((probabilities * ECE_BINS).astype(int), 0, ECE_BINS - 1)
    gap = probabilities - (present > 0)
    errors = [
        sum(abs(gap[places[:, k] == place, k].sum()) for place in range(ECE_BINS)) / len(gap)
        for k in range(gap.shape[1])
    ]
    return float(np.mean(errors))


def _f1(right: np.ndarray, wrong: np.ndarray, missed: np.ndarray) -> np.ndarray:
    total = 2 * right + wrong + missed
    return np.divide(2 * right, total, out=np.zeros_like(total), where=total > 0)
