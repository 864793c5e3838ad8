"""Measures of masks: arrays in, numbers out.

N images; K classes; masks are uint8[N,P,P] with `IGNORED` for points that do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from rootstock.tasks.segmentation.grids import GRID, as_grids, classes_on_points, on_points
from rootstock.tasks.segmentation.masks import IGNORED, POINTS

MAX_CALIBRATED = 20_000
"""Positions to which the temperature is fitted."""
CENTRES = ((np.arange(GRID) + 0.5) * POINTS / GRID).astype(np.int64)
"""The point nearest to the centre of each cell, along a side."""


@dataclass(frozen=True)
class Counts:
    """Points of each image and class, int64[N,K]: true, said, and both.

    ``confusion`` int64[K,K] is over all images, true classes in rows.
    """

    true: np.ndarray
    said: np.ndarray
    both: np.ndarray
    confusion: np.ndarray

    @classmethod
    def of(cls, decisions: np.ndarray, masks: np.ndarray) -> Self:
        """Count the points of decisions [N,K,G,G]; ignored points do not count."""
        n_images, n_classes = decisions.shape[:2]
        predicted = classes_on_points(decisions)
        cells = np.zeros((n_images, n_classes, n_classes), np.int64)
        for number in range(n_images):
            counts = masks[number] != IGNORED
            pairs = masks[number][counts].astype(np.int64) * n_classes + predicted[number][counts]
            cells[number] = np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, -1)
        both = np.diagonal(cells, axis1=1, axis2=2)
        return cls(cells.sum(axis=2), cells.sum(axis=1), both, cells.sum(axis=0))

    def overlaps(self, draws: np.ndarray | None = None) -> np.ndarray:
        """Return the IoU of each class over all images, float64[R,K]; NaN for a class without any.

        ``draws`` float[R,N]: how often each image counts; None: once.
        """
        if draws is None:
            draws = np.ones((1, len(self.true)))
        both = draws @ self.both
        joined = draws @ (self.true + self.said - self.both)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(both / joined)

    def accuracies(self, draws: np.ndarray | None = None) -> np.ndarray:
        """Return the share of points with the right class, float64[R]."""
        if draws is None:
            draws = np.ones((1, len(self.true)))
        return np.asarray(
            draws @ self.both.sum(axis=1) / np.maximum(draws @ self.true.sum(axis=1), 1)
        )


def mean_overlap(overlaps: np.ndarray) -> np.ndarray:
    """Return the mean IoU float64[R] of overlaps [R,K], over the classes that are present."""
    known = np.isfinite(overlaps)
    return np.asarray(np.where(known, overlaps, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1))


def losses(outputs: np.ndarray, masks: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return each image's mean log-loss float64[N] over its points; 0 if all are ignored."""
    found = np.zeros(len(masks))
    for block, grids in on_points(as_grids(outputs)):
        scaled = grids / temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        sums = np.log(np.exp(scaled).sum(axis=1))
        true = masks[block]
        counts = true != IGNORED
        picked = np.take_along_axis(scaled, np.where(counts, true, 0)[:, None].astype(int), 1)[:, 0]
        of_points = np.where(counts, sums - picked, 0).sum(axis=(1, 2), dtype=np.float64)
        found[block] = of_points / np.maximum(counts.sum(axis=(1, 2)), 1)
    return found


def sample_cells(outputs: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return outputs float32[M,K] and classes int64[M] of at most `MAX_CALIBRATED` cells."""
    true = masks[:, CENTRES][:, :, CENTRES].ravel()
    rows = np.flatnonzero(true != IGNORED)
    rows = rows[:: max(1, -(-len(rows) // MAX_CALIBRATED))]
    grids = as_grids(outputs)
    image, cell = np.divmod(rows, GRID**2)
    flat = grids.reshape(*grids.shape[:2], -1)
    return flat[image, :, cell], true[rows].astype(np.int64)


def mean_shares(decisions: np.ndarray) -> np.ndarray:
    """Return the share of the area of each class, float64[K], over all decisions [N,K,G,G]."""
    predicted = classes_on_points(decisions)
    counts = np.bincount(predicted.ravel(), minlength=decisions.shape[1])
    return np.asarray(counts / max(1, predicted.size))
