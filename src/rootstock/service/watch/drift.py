"""Drift: do recent images, and their answers, resemble those of the validation set?

The population stability index of two shares p and q over bins is sum((p - q) ln(p / q)). By a rule
of thumb from credit scoring (Siddiqi 2006), 0.1 deserves a look and 0.25 calls for new data.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from rootstock.model.predictor import Prediction, Predictor

BINS = 10
MIN_IMAGES = 50
"""Images that a score needs."""
_FLOOR = 1e-3


class Drift:
    """The last ``window`` answers of one model, compared with its reference."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._digest = ""
        self._novelties: deque[float] = deque(maxlen=window)
        self._labels: deque[str] = deque(maxlen=window)

    def note(self, predictor: Predictor, prediction: Prediction) -> None:
        """Count one answer; a new model starts again from none."""
        if predictor.bundle.digest != self._digest:
            self._digest = predictor.bundle.digest
            self._novelties.clear()
            self._labels.clear()
        if prediction.novelty is not None:
            self._novelties.append(prediction.novelty)
            self._labels.append(prediction.label)

    def scores(self, predictor: Predictor) -> dict[str, float]:
        """Return the index of features and of classes; empty if there are too few images."""
        reference = predictor.bundle.reference
        is_enough = predictor.bundle.digest == self._digest and len(self._labels) >= MIN_IMAGES
        if reference is None or not is_enough:
            return {}
        edges = np.quantile(reference.distances, np.linspace(0, 1, BINS + 1)[1:-1])
        counts = np.bincount(np.searchsorted(edges, self._novelties), minlength=BINS)
        number = {label: index for index, label in enumerate(predictor.classes)}
        votes = np.bincount([number[label] for label in self._labels], minlength=len(number))
        return {
            "features": psi(counts / counts.sum(), np.full(BINS, 1 / BINS)),
            "classes": psi(votes / votes.sum(), reference.shares),
        }

    def report(self, predictor: Predictor) -> dict[str, Any]:
        """Return the answer of /v1/drift."""
        shares = np.unique(list(self._labels), return_counts=True)
        return {
            "images": len(self._labels),
            "needed": MIN_IMAGES,
            "window": self._window,
            "psi": {name: round(value, 4) for name, value in self.scores(predictor).items()},
            "predicted": {
                str(label): round(int(count) / len(self._labels), 4)
                for label, count in zip(*shares, strict=True)
            },
            "median_novelty": round(float(np.median(self._novelties)), 4)
            if self._novelties
            else None,
        }


def psi(shares: np.ndarray, expected: np.ndarray) -> float:
    """Return the population stability index of two shares float[B] that each sum to 1."""
    p, q = np.maximum(shares, _FLOOR), np.maximum(expected, _FLOOR)
    return float(((p - q) * np.log(p / q)).sum())
