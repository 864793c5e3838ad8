"""Drift: do recent images look, and come out, like those that the model was validated on?

The population stability index of two shares p and q over bins is sum((p - q) ln(p / q)); by a rule
of thumb from credit scoring (Siddiqi 2006) .1 is worth a look and .25 calls for new data.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from rootstock.model.predictor import Prediction, Predictor

BINS = 10
LEAST = 50
"""Images before which nothing is said."""
_FLOOR = 1e-3


class Drift:
    """The last ``window`` answers of one model against its reference."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._digest = ""
        self._novelties: deque[float] = deque(maxlen=window)
        self._labels: deque[str] = deque(maxlen=window)

    def note(self, predictor: Predictor, prediction: Prediction) -> None:
        """Count one answer; another model begins anew."""
        if predictor.bundle.digest != self._digest:
            self._digest = predictor.bundle.digest
            self._novelties.clear()
            self._labels.clear()
        if prediction.novelty is not None:
            self._novelties.append(prediction.novelty)
            self._labels.append(prediction.label)

    def scores(self, predictor: Predictor) -> dict[str, float]:
        """The index of features and of classes; empty while there are too few images."""
        reference = predictor.bundle.reference
        counted = predictor.bundle.digest == self._digest and len(self._labels) >= LEAST
        if reference is None or not counted:
            return {}
        edges = np.quantile(reference.distances, np.linspace(0, 1, BINS + 1)[1:-1])
        found = np.bincount(np.searchsorted(edges, self._novelties), minlength=BINS)
        number = {label: index for index, label in enumerate(predictor.classes)}
        votes = np.bincount([number[label] for label in self._labels], minlength=len(number))
        return {
            "features": psi(found / found.sum(), np.full(BINS, 1 / BINS)),
            "classes": psi(votes / votes.sum(), reference.shares),
        }

    def report(self, predictor: Predictor) -> dict[str, Any]:
        """What /v1/drift answers."""
        shares = np.unique(list(self._labels), return_counts=True)
        return {
            "images": len(self._labels),
            "needed": LEAST,
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


def psi(found: np.ndarray, expected: np.ndarray) -> float:
    """The population stability index of two shares float[B] that each sum to 1."""
    p, q = np.maximum(found, _FLOOR), np.maximum(expected, _FLOOR)
    return float(((p - q) * np.log(p / q)).sum())
