"""Images worth a look: labels that probes doubt, and pictures unlike all others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rootstock.data.manifest import ImageRow
from rootstock.heads.linear import out_of_fold_probabilities
from rootstock.review.record import Burst, Outlier, Suspect

MOST_SUSPECTS = 50
MOST_OUTLIERS = 30
OUTLIER_FROM = 6.0
NEIGHBOURS = 5
PROBE_L2 = 1e-2
SURE = 0.8
BURST_FROM = 0.9
"""Cosine of centred features; a stricter border is taken where different classes come closer."""
BURST_QUANTILE = 0.9999
BLOCK = 2048


def suspect_labels(
    rows: Sequence[ImageRow],
    features: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    folds: int,
    seed: int,
) -> list[Suspect]:
    """Labels that confident learning doubts, the surest doubts first, at most `MOST_SUSPECTS`.

    A class counts as possible where its out-of-fold probability reaches the mean that images of
    that class have; an image is suspect where the likeliest possible class is not its own
    (Northcutt et al. 2021, arXiv:1911.00068).
    """
    counts = np.bincount(labels, minlength=len(classes))
    kept = np.flatnonzero(counts[labels] >= 2)
    if len(np.unique(labels[kept])) < 2:
        return []
    present, numbers = np.unique(labels[kept], return_inverse=True)
    found = out_of_fold_probabilities(features[kept], numbers, folds=folds, l2=PROBE_L2, seed=seed)
    own = found[np.arange(len(kept)), numbers]
    usual = np.array([own[numbers == k].mean() for k in range(len(present))])
    usual = np.minimum(usual, SURE)  # where all are nearly certain, fairly sure is a doubt too
    possible = np.where(found >= usual, found, 0.0)
    best = possible.argmax(axis=1)
    doubted = np.flatnonzero((possible.max(axis=1) > 0) & (best != numbers))
    order = doubted[np.argsort(own[doubted] - found[doubted, best[doubted]], kind="stable")]
    return [
        Suspect(
            path=rows[kept[i]].path,
            label=classes[labels[kept[i]]],
            suggested=classes[present[best[i]]],
            confidence=round(float(found[i, best[i]]), 3),
        )
        for i in order[:MOST_SUSPECTS]
    ]


def find_outliers(rows: Sequence[ImageRow], features: np.ndarray) -> list[Outlier]:
    """Images whose nearest neighbours are unusually far, farthest first.

    The distance is 1 - cosine to the `NEIGHBOURS`-th nearest image, counted in robust standard
    deviations (1.4826 times the median absolute deviation) from the median.
    """
    if len(rows) < 4 * NEIGHBOURS:
        return []
    directions = _directions(features)
    distance = np.empty(len(rows))
    for start in range(0, len(rows), BLOCK):
        cosine = directions[start : start + BLOCK] @ directions.T
        # the nearest of all is the image itself
        distance[start : start + BLOCK] = (
            1.0 - np.partition(cosine, -NEIGHBOURS - 1, axis=1)[:, -NEIGHBOURS - 1]
        )
    middle = np.median(distance)
    spread = max(1.4826 * np.median(np.abs(distance - middle)), 1e-6)
    scores = (distance - middle) / spread
    order = np.argsort(-scores, kind="stable")[:MOST_OUTLIERS]
    return [
        Outlier(path=rows[i].path, label=rows[i].label, score=round(float(scores[i]), 1))
        for i in order
        if scores[i] >= OUTLIER_FROM
    ]


def find_bursts(rows: Sequence[ImageRow], features: np.ndarray) -> list[Burst]:
    """Runs of consecutive file names of one class that look nearly the same, longest first."""
    directions = _directions(features)
    border = _burst_border(directions, np.array([row.label for row in rows]))
    order = sorted(range(len(rows)), key=lambda i: (rows[i].label, rows[i].path))
    bursts: list[list[int]] = []
    for before, here in zip(order, order[1:], strict=False):
        same = rows[before].label == rows[here].label
        if not same or float(directions[before] @ directions[here]) < border:
            continue
        if bursts and bursts[-1][-1] == before:
            bursts[-1].append(here)
        else:
            bursts.append([before, here])
    bursts.sort(key=len, reverse=True)
    return [
        Burst(
            label=rows[run[0]].label,
            paths=tuple(rows[i].path for i in run),
            splits=tuple(sorted({rows[i].split for i in run})),
        )
        for run in bursts
        if len({rows[i].sha256 for i in run}) > 1  # byte-equal copies are reported elsewhere
    ]


def _burst_border(directions: np.ndarray, labels: np.ndarray) -> float:
    """As near as images of different classes come by chance, or `BURST_FROM`."""
    random = np.random.default_rng(0)
    left, right = random.integers(0, len(labels), (2, 20_000))
    different = labels[left] != labels[right]
    if not different.any():
        return BURST_FROM
    cosine = np.einsum("nc,nc->n", directions[left[different]], directions[right[different]])
    return max(BURST_FROM, float(np.quantile(cosine, BURST_QUANTILE)))


def _directions(features: np.ndarray) -> np.ndarray:
    centred = features.astype(np.float32) - features.mean(axis=0, dtype=np.float32)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
