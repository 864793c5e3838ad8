"""Statistics of measured scores: arrays in, numbers out."""

from __future__ import annotations

import math

import numpy as np


def standard_error(accuracy: float, n_images: int) -> float:
    """Binomial standard error of an accuracy measured once on each of ``n_images``."""
    # 0 or 1 on a few images is not free of error: one image is added to each side.
    smoothed = (accuracy * n_images + 1.0) / (n_images + 2.0)
    return math.sqrt(smoothed * (1.0 - smoothed) / max(1, n_images))


def wilson_interval(right: int, total: int, *, z: float = 1.96) -> tuple[float, float]:
    """Interval (low, high) of a share, 95 % by default (Wilson 1927); (0, 1) for nothing seen."""
    if total == 0:
        return 0.0, 1.0
    share = right / total
    scale = 1 + z**2 / total
    centre = (share + z**2 / (2 * total)) / scale
    half = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def lead(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """By how much the mean of losses [N] lies below that of ``other``, and its standard error.

    Both are of the same images, whose differences vary less than the losses do.
    """
    differences = other - one
    return float(differences.mean()), float(differences.std() / math.sqrt(len(differences)))
