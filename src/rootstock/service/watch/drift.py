"""Drift: do recent images and their answers resemble those of the validation set?"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import numpy as np

from rootstock.evaluate.without_labels import Estimate, estimate_accuracy
from rootstock.metrics import stability_index
from rootstock.model.predictor import Predictor
from rootstock.tasks.answer import Answer

BINS = 10
MIN_IMAGES = 50
"""Minimum images for a score."""


class Drift:
    """The last ``window`` answers of one model, compared with its reference."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._digest = ""
        self._novelties: deque[float] = deque(maxlen=window)
        self._answers: deque[Answer] = deque(maxlen=window)

    def note(self, predictor: Predictor, answer: Answer) -> None:
        """Count one answer. A new model starts from zero."""
        if predictor.bundle.digest != self._digest:
            self._digest = predictor.bundle.digest
            self._novelties.clear()
            self._answers.clear()
        if answer.novelty is not None:
            self._novelties.append(answer.novelty)
            self._answers.append(answer)

    def scores(self, predictor: Predictor) -> dict[str, float]:
        """Return the index of features and of answers; empty if there are too few images."""
        reference = predictor.reference
        is_enough = predictor.bundle.digest == self._digest and len(self._answers) >= MIN_IMAGES
        if reference is None or not is_enough:
            return {}
        edges = np.quantile(reference.distances, np.linspace(0, 1, BINS + 1)[1:-1])
        bins = np.searchsorted(edges, self._novelties)
        counts = np.array([(bins == number).sum() for number in range(BINS)])
        scores = {"features": stability_index(counts / counts.sum(), np.full(BINS, 1 / BINS))}
        return scores | predictor.task.drift(self._answers, predictor.names, reference.remembered)

    def estimate(self, predictor: Predictor) -> Estimate:
        """Return the accuracy predicted by the confidence of recent answers."""
        is_same = predictor.bundle.digest == self._digest
        answers = list(self._answers) if is_same else []
        reference = predictor.reference
        return estimate_accuracy(
            predictor.task.expected_scores(answers),
            self.scores(predictor),
            {"features": BINS - 1, "classes": len(predictor.names) - 1},
            len(reference.distances) if reference else 0,
        )

    def report(self, predictor: Predictor) -> dict[str, Any]:
        """Return the answer of /v1/drift."""
        votes = Counter(name for answer in self._answers for name in answer.categories)
        return {
            "images": len(self._answers),
            "needed": MIN_IMAGES,
            "window": self._window,
            "psi": {name: round(value, 4) for name, value in self.scores(predictor).items()},
            "predicted": {
                category: round(count / votes.total(), 4)
                for category, count in sorted(votes.items())
            },
            "estimated_accuracy": self.estimate(predictor)._asdict(),
            "median_novelty": round(float(np.median(self._novelties)), 4)
            if self._novelties
            else None,
        }
