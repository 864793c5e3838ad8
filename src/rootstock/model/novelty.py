"""Reference: features of training images, so that a model can flag images unlike them.

An image is unknown if its features are farther from those of the training images than for nearly
all validation images (deep nearest neighbours, Sun et al. 2022). The task's own arrays about the
validation images are stored with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

MAX_FEATURES = 1_000
"""Training images stored in a model: two bytes per feature, and fast to compare."""
MAX_DISTANCES = 10_000
NEIGHBOURS = 5
INT8_DISTANCES = "int8_distances"


@dataclass(frozen=True)
class Reference:
    """Features of training images, and the distances of validation images to them.

    ``features`` float16[M,D] have rows of unit length; ``distances`` float32[V] of the validation
    images are ascending; ``remembered`` are arrays of the task, see `Task.remember`.
    """

    features: np.ndarray
    distances: np.ndarray
    remembered: Mapping[str, np.ndarray] = field(default_factory=dict)
    int8_distances: np.ndarray | None = None
    """The same distances with the int8 twin; None if there is no twin."""

    @classmethod
    def measure(
        cls,
        train_features: np.ndarray,
        val_features: np.ndarray,
        remembered: Mapping[str, np.ndarray],
    ) -> Reference:
        """Return the reference of features float[M,D] and [V,D]."""
        rows = reference_rows(len(train_features))
        features = unit_rows(train_features[rows]).astype(np.float16)
        some = _spread(len(val_features), MAX_DISTANCES)
        blank = cls(features, np.empty(0, np.float32))
        return cls(features, np.sort(blank.distance(val_features[some])), remembered)

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Return float32[N]: mean cosine distance of features [N,D] to the nearest training images.

        0 means the same direction, 1 a right angle.
        """
        # Not a matrix product: BLAS would start one thread per core for a tenth of a millisecond of
        # work, while a service already uses every core (measured: 12 ms instead of .1). Row by row
        # it starts no threads; einsum takes up to twice the time.
        likeness = np.vecdot(unit_rows(features)[:, None], self._wide)
        k = min(NEIGHBOURS, likeness.shape[1])
        nearest = np.partition(likeness, -k, axis=1)[:, -k:]
        return (1 - nearest.mean(axis=1)).astype(np.float32)

    def nearest(self, features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows int64[k] and distances float32[k] of the nearest images to features [D].

        Equal distances are in the order of the rows.
        """
        likeness = np.vecdot(unit_rows(features[None]), self._wide)
        rows = np.argsort(-likeness, kind="stable")[:count]
        return rows, 1 - likeness[rows]

    def limit(self, share: float) -> float:
        """Return the distance that this share of images like the validation images exceeds."""
        rank = math.ceil((len(self.distances) + 1) * (1 - share))
        return float(self.distances[min(rank, len(self.distances)) - 1])

    def with_int8(self, val_features: np.ndarray) -> Reference:
        """Return the same with the distances of features [V,D] that the int8 twin gave."""
        some = _spread(len(val_features), MAX_DISTANCES)
        return replace(self, int8_distances=np.sort(self.distance(val_features[some])))

    def in_int8(self) -> Reference:
        """Return the reference for features of the int8 twin.

        Rounding moves them away from those of the training images: with the distances of float32
        too many images would be unknown.
        """
        distances = self.distances if self.int8_distances is None else self.int8_distances
        return replace(self, distances=distances)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that a model directory stores."""
        arrays = {"features": self.features, "distances": self.distances, **self.remembered}
        if self.int8_distances is not None:
            arrays[INT8_DISTANCES] = self.int8_distances
        # safetensors writes the bytes in memory order, whatever the strides.
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Reference:
        """Return the object from `arrays`.

        Raises:
            KeyError: one is missing.
        """
        remembered = dict(arrays)
        features, distances = remembered.pop("features"), remembered.pop("distances")
        in_int8 = remembered.pop(INT8_DISTANCES, None)
        return cls(features, distances, remembered, in_int8)

    @cached_property
    def _wide(self) -> np.ndarray:
        return self.features.astype(np.float32)


def reference_rows(n_train: int) -> np.ndarray:
    """Return the numbers of the training images whose features a model stores."""
    return _spread(n_train, MAX_FEATURES)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Return rows [N,D] as float32 of length 1; rows of zeros do not change."""
    wide = np.asarray(rows, np.float32)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)


def _spread(n: int, most: int) -> np.ndarray:
    """Return at most ``most`` of n positions, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))
