"""Images worth a look: images unlike all others, and bursts of nearly the same image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rootstock.data.manifest import ImageRow
from rootstock.review.record import Burst, Outlier

MAX_OUTLIERS = 30
MIN_OUTLIER_DEVIATIONS = 6.0
NEIGHBOURS = 5
MIN_BURST_COSINE = 0.9
"""Cosine of centred features; stricter if images of different strata come closer."""
BURST_QUANTILE = 0.9999
BLOCK_ROWS = 2048


def find_outliers(rows: Sequence[ImageRow], features: np.ndarray) -> list[Outlier]:
    """Return images whose nearest neighbours are unusually far, farthest first.

    The distance is 1 - cosine to the `NEIGHBOURS`-th nearest image, in robust standard
    deviations (1.4826 times the median absolute deviation) from the median.
    """
    if len(rows) < 4 * NEIGHBOURS:
        return []
    directions = directions_of(features)
    distance = np.empty(len(rows))
    for start in range(0, len(rows), BLOCK_ROWS):
        cosine = directions[start : start + BLOCK_ROWS] @ directions.T
        # the nearest image is the image itself
        distance[start : start + BLOCK_ROWS] = (
            1.0 - np.partition(cosine, -NEIGHBOURS - 1, axis=1)[:, -NEIGHBOURS - 1]
        )
    middle = np.median(distance)
    spread = max(1.4826 * np.median(np.abs(distance - middle)), 1e-6)
    scores = (distance - middle) / spread
    order = np.argsort(-scores, kind="stable")[:MAX_OUTLIERS]
    return [
        Outlier(path=rows[i].path, label=rows[i].target, score=round(float(scores[i]), 1))
        for i in order
        if scores[i] >= MIN_OUTLIER_DEVIATIONS
    ]


def find_bursts(rows: Sequence[ImageRow], features: np.ndarray) -> list[Burst]:
    """Return runs of consecutive files of one stratum that look nearly the same, longest first."""
    directions = directions_of(features)
    border = burst_border(directions, np.array([row.stratum for row in rows]))
    order = sorted(range(len(rows)), key=lambda i: (rows[i].stratum, rows[i].path))
    bursts: list[list[int]] = []
    for before, here in zip(order, order[1:], strict=False):
        same = rows[before].stratum == rows[here].stratum
        if not same or float(directions[before] @ directions[here]) < border:
            continue
        if bursts and bursts[-1][-1] == before:
            bursts[-1].append(here)
        else:
            bursts.append([before, here])
    bursts.sort(key=len, reverse=True)
    return [
        Burst(
            label=rows[run[0]].stratum,
            paths=tuple(rows[i].path for i in run),
            splits=tuple(sorted({rows[i].split for i in run})),
        )
        for run in bursts
        if len({rows[i].sha256 for i in run}) > 1  # byte-equal copies are reported elsewhere
    ]


def burst_border(directions: np.ndarray, strata: np.ndarray) -> float:
    """Return the cosine that images of different strata reach by chance, or the minimum."""
    random = np.random.default_rng(0)
    left, right = random.integers(0, len(strata), (2, 20_000))
    different = strata[left] != strata[right]
    if not different.any():
        return MIN_BURST_COSINE
    cosine = np.einsum("nc,nc->n", directions[left[different]], directions[right[different]])
    return max(MIN_BURST_COSINE, float(np.quantile(cosine, BURST_QUANTILE)))


def directions_of(features: np.ndarray) -> np.ndarray:
    """Return features [N,C], centred and scaled to length 1."""
    centred = features.astype(np.float32) - features.mean(axis=0, dtype=np.float32)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
