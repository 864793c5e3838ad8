"""Select unlabelled images to label next: varied ones that a model is unsure of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MAX_CLUSTERED_IMAGES = 10_000
"""At most this many of the least certain images are clustered."""
ROUNDS = 10
"""Rounds of k-means; by then the centres are stable enough to choose images."""
MIN_WEIGHT = 1e-6
"""Minimum weight of an image in a cluster, for models that are sure of everything."""


class Suggestion(NamedTuple):
    """An image to label: its row, the uncertainty of its answer, and its distance to the others.

    ``distance`` is the cosine distance to the nearest image that is labelled or comes before it.
    """

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
    """Return at most ``count`` images, the most useful first. The result is deterministic.

    ``features`` [N,D] are those that the head reads, and ``known`` [M,D] those of labelled images.
    ``uncertainty`` float64[N] is from 0 to 1; if it is None, images far from the known ones count
    more.

    K-means divides the images into ``count`` clusters, weighted by uncertainty, and the image
    nearest to each centre is chosen (Zhdanov 2019, arXiv:1901.05954). While a model is unsure of
    everything, these are typical images, which help most at first (Hacohen et al. 2022); later
    they are images near class borders. The largest cluster comes first.
    """
    n = len(features)
    unsure = np.ones(n) if uncertainty is None else np.asarray(uncertainty, float)
    rows = np.argsort(-unsure, kind="stable")[:MAX_CLUSTERED_IMAGES]
    if uncertainty is None:
        rows = np.unique(np.linspace(0, n - 1, min(n, MAX_CLUSTERED_IMAGES)).round().astype(int))
    if not len(rows):
        return []
    weights = unsure[rows] + MIN_WEIGHT
    units = _unit_rows(features[rows])
    to_known = np.full(len(rows), np.inf)
    if known is not None and len(known):
        to_known = np.maximum(1.0 - (units @ _unit_rows(known).T).max(axis=1), 0.0)
        if uncertainty is None:
            weights = to_known + MIN_WEIGHT
    centred = _unit_rows(units - np.average(units, axis=0, weights=weights))
    chosen = _choose_central(centred, weights, min(count, len(rows)))
    nearest = to_known[chosen]
    suggestions = []
    for place, i in enumerate(chosen):
        distance = float(min(nearest[place], 1.0))
        suggestions.append(Suggestion(int(rows[i]), float(unsure[rows[i]]), max(distance, 0.0)))
        nearest = np.minimum(nearest, 1.0 - units[chosen] @ units[i])
    return suggestions


def _choose_central(points: np.ndarray, weights: np.ndarray, count: int) -> list[int]:
    """Return ``count`` rows of points [N,D], each nearest to a centre of weighted k-means."""
    centres = points[_spread_out(points, weights, count)]
    for _ in range(ROUNDS):
        members = _distances(points, centres).argmin(axis=1)
        for number in np.unique(members):
            some = members == number
            centres[number] = np.average(points[some], axis=0, weights=weights[some])
    distances = _distances(points, centres)
    members = distances.argmin(axis=1)
    mass = np.zeros(count)
    np.add.at(mass, members, weights)
    chosen: list[int] = []
    taken = np.zeros(len(points), bool)
    for number in np.argsort(-mass, kind="stable"):
        best = int(np.where(taken, np.inf, distances[:, number]).argmin())
        taken[best] = True
        chosen.append(best)
    return chosen


def _spread_out(points: np.ndarray, weights: np.ndarray, count: int) -> list[int]:
    """Return initial rows: each has the largest weighted distance to those before it."""
    chosen: list[int] = []
    nearest = np.ones(len(points))
    while len(chosen) < count:
        gains = weights * nearest
        gains[chosen] = -1.0
        chosen.append(int((-gains).argmin()))
        nearest = np.minimum(nearest, _distances(points, points[chosen[-1]][None])[:, 0])
    return chosen


def _distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return squared distances float[N,K]."""
    squares = np.square(points).sum(axis=1)[:, None] + np.square(centres).sum(axis=1)
    return np.asarray(np.maximum(squares - 2.0 * points @ centres.T, 0.0))


def _unit_rows(features: np.ndarray) -> np.ndarray:
    wide = np.asarray(features, np.float32)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12))
