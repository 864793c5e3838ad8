"""Which unlabelled images to label next: those that a model is unsure of, and that differ."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MAX_CANDIDATES = 20
"""Times the wanted number of images: only the least certain ones are compared with each other."""


class Suggestion(NamedTuple):
    """An image to label: its row, how unsure its answer is, and how far it is from the others."""

    row: int
    uncertainty: float
    distance: float


def suggest_images(
    features: np.ndarray,
    uncertainty: np.ndarray | None,
    *,
    count: int,
    known: np.ndarray | None = None,
) -> list[Suggestion]:
    """Return at most ``count`` images, the most useful first; the same input, the same images.

    ``features`` [N,D] are those that the head reads, and ``known`` [M,D] those of labelled images.
    ``uncertainty`` float64[N] from 0 to 1; None: images are chosen by their features only.

    An image is chosen for the product of its uncertainty and its cosine distance to the nearest
    image that is labelled or chosen: the greedy k-centre method (Sener and Savarese 2018), weighted
    by the margin (Scheffer et al. 2001), among the least certain images (Citovsky et al. 2021).
    """
    weights = np.ones(len(features)) if uncertainty is None else np.asarray(uncertainty, float)
    rows = np.argsort(-weights, kind="stable")[: MAX_CANDIDATES * count]
    if uncertainty is None:
        rows = np.arange(len(features))
    units = _unit_rows(features[rows])
    nearest = np.full(len(rows), np.inf)
    if known is not None and len(known):
        nearest = _distances(units, _unit_rows(known))
    suggestions: list[Suggestion] = []
    left = np.ones(len(rows), bool)
    for _ in range(min(count, len(rows))):
        distances = np.where(np.isinf(nearest), 1.0, nearest)
        gains = np.where(left, (weights[rows] + 1e-6) * (distances + 1e-6), -1.0)
        best = int(np.flatnonzero(gains == gains.max())[0])
        left[best] = False
        suggestions.append(
            Suggestion(int(rows[best]), float(weights[rows[best]]), float(distances[best]))
        )
        nearest = np.minimum(nearest, np.maximum(1.0 - units @ units[best], 0.0))
    return suggestions


def _unit_rows(features: np.ndarray) -> np.ndarray:
    wide = np.asarray(features, np.float32)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)


def _distances(units: np.ndarray, known: np.ndarray, block: int = 4096) -> np.ndarray:
    """Return the cosine distance float[N] of each row to the nearest known one."""
    parts = [
        1.0 - (units[start : start + block] @ known.T).max(axis=1)
        for start in range(0, len(units), block)
    ]
    return np.maximum(np.concatenate([np.zeros(0), *parts]), 0.0)
