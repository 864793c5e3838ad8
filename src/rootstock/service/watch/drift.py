"""Drift: do recent images, and their answers, resemble those of the validation set?

The population stability index of two shares p and q over bins is sum((p - q) ln(p / q)). By a rule
of thumb from credit scoring (Siddiqi 2006), 0.1 deserves a look and 0.25 calls for new data.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import numpy as np

from rootstock.model.predictor import Predictor
from rootstock.tasks.answer import Answer

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
        self._categories: deque[str | None] = deque(maxlen=window)

    def note(self, predictor: Predictor, answer: Answer) -> None:
        """Count one answer; a new model starts again from none."""
        if predictor.bundle.digest != self._digest:
            self._digest = predictor.bundle.digest
            self._novelties.clear()
            self._categories.clear()
        if answer.novelty is not None:
            self._novelties.append(answer.novelty)
            self._categories.append(answer.category)

    def scores(self, predictor: Predictor) -> dict[str, float]:
        """Return the index of features and of classes; empty if there are too few images."""
        reference = predictor.bundle.reference
        is_enough = predictor.bundle.digest == self._digest and len(self._categories) >= MIN_IMAGES
        if reference is None or not is_enough:
            return {}
        edges = np.quantile(reference.distances, np.linspace(0, 1, BINS + 1)[1:-1])
        bins = np.searchsorted(edges, self._novelties)
        counts = np.array([(bins == number).sum() for number in range(BINS)])
        scores = {"features": psi(counts / counts.sum(), np.full(BINS, 1 / BINS))}
        if "shares" in reference.remembered:
            votes = Counter(self._categories)
            shares = np.array([votes[name] for name in predictor.names]) / votes.total()
            scores["classes"] = psi(shares, reference.remembered["shares"])
        return scores

    def report(self, predictor: Predictor) -> dict[str, Any]:
        """Return the answer of /v1/drift."""
        votes = Counter(category for category in self._categories if category is not None)
        return {
            "images": len(self._categories),
            "needed": MIN_IMAGES,
            "window": self._window,
            "psi": {name: round(value, 4) for name, value in self.scores(predictor).items()},
            "predicted": {
                category: round(count / votes.total(), 4)
                for category, count in sorted(votes.items())
            },
            "median_novelty": round(float(np.median(self._novelties)), 4)
            if self._novelties
            else None,
        }


def psi(shares: np.ndarray, expected: np.ndarray) -> float:
    """Return the population stability index of two shares float[B] that each sum to 1."""
    p, q = np.maximum(shares, _FLOOR), np.maximum(expected, _FLOOR)
    return float(((p - q) * np.log(p / q)).sum())
