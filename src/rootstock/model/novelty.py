"""Reference: what a model has seen, so that it can say when an image is like none of it.

Two honest answers come from it. An image is unknown if its features lie farther from those of the
training images than nearly all validation images do (deep nearest neighbours, Sun et al. 2022). A
prediction set holds the true class in a stated share of cases (split conformal prediction with the
score 1 - p, Sadinle et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

MAX_FEATURES = 1_000
"""Training images kept in a model: two bytes a feature, and little beside a forward pass."""
MAX_SCORES = 10_000
NEIGHBOURS = 5


@dataclass(frozen=True)
class Reference:
    """Features of training images, and how the validation images fared against them.

    ``features`` float16[M,D], rows of unit length; ``distances`` float32[V] of the validation
    images, rising; ``scores`` float32[V], 1 - probability of their true class, rising;
    ``shares`` float32[K], how often each class was predicted for them.
    """

    features: np.ndarray
    distances: np.ndarray
    scores: np.ndarray
    shares: np.ndarray

    @classmethod
    def measure(
        cls,
        train_features: np.ndarray,
        val_features: np.ndarray,
        val_probabilities: np.ndarray,
        val_labels: np.ndarray,
    ) -> Reference:
        """From features float[M,D] and [V,D], probabilities float[V,K] and labels int64[V]."""
        kept = _spread(len(train_features), MAX_FEATURES)
        blank = cls(
            _unit(train_features[kept]).astype(np.float16),
            np.empty(0, np.float32),
            np.empty(0, np.float32),
            np.empty(0, np.float32),
        )
        some = _spread(len(val_features), MAX_SCORES)
        true = val_probabilities[np.arange(len(val_labels)), val_labels]
        votes = np.bincount(val_probabilities.argmax(axis=1), minlength=val_probabilities.shape[1])
        return cls(
            blank.features,
            np.sort(blank.distance(val_features[some])),
            np.sort(1 - true[some]).astype(np.float32),
            (votes / votes.sum()).astype(np.float32),
        )

    def distance(self, features: np.ndarray) -> np.ndarray:
        """float32[N]: mean cosine distance of features float[N,D] to their nearest training images.

        0 is the same direction, 1 is at right angles.
        """
        # Not a matrix product: BLAS would start a thread a core for a tenth of a millisecond's
        # work, while a service keeps every core busy already (measured: 12 ms instead of .1).
        # Row by row it starts none; einsum takes up to twice the time.
        likeness = np.vecdot(_unit(features)[:, None], self._wide)
        k = min(NEIGHBOURS, likeness.shape[1])
        nearest = np.partition(likeness, -k, axis=1)[:, -k:]
        return (1 - nearest.mean(axis=1)).astype(np.float32)

    def limit(self, share: float) -> float:
        """The distance that this share of images like the validation images exceed."""
        rank = math.ceil((len(self.distances) + 1) * (1 - share))
        return float(self.distances[min(rank, len(self.distances)) - 1])

    def prediction_set(self, probabilities: np.ndarray, coverage: float) -> np.ndarray:
        """Class numbers, most probable first, that hold the true one in ``coverage`` of cases.

        For one row float[K]. With few validation images a high coverage takes every class.
        """
        order = np.argsort(-probabilities, kind="stable")
        rank = math.ceil((len(self.scores) + 1) * coverage)
        if rank > len(self.scores):
            return order
        kept = 1 - probabilities[order] <= self.scores[rank - 1]
        kept[0] = True
        return order[kept]

    def arrays(self) -> dict[str, np.ndarray]:
        """As they are stored in a model directory."""
        return {
            "features": self.features,
            "distances": self.distances,
            "scores": self.scores,
            "shares": self.shares,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Reference:
        """The inverse of `arrays`.

        Raises:
            KeyError: one is missing.
        """
        return cls(*(arrays[name] for name in ("features", "distances", "scores", "shares")))

    @cached_property
    def _wide(self) -> np.ndarray:
        return self.features.astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float32)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)


def _spread(n: int, most: int) -> np.ndarray:
    """At most ``most`` of n positions, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))
