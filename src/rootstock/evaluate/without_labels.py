"""Estimate the accuracy of recent answers without labels, from calibrated confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

MIN_IMAGES = 50
MAX_DRIFT = {"features": 0.25, "classes": 0.1}
"""Excess population stability index above which confidences are not reliable.

Chosen on six sets with seven shifts each (benchmarks/estimated_accuracy.py)."""
MAX_MARGIN = 0.1
"""Largest useful half-width of the 95 % interval."""
Z_95 = 1.96


class Estimate(NamedTuple):
    """The expected accuracy of ``images`` answers with its 95 % interval.

    ``reason``: why there is no estimate; the numbers are None then.
    """

    images: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""


def estimate_accuracy(
    confidences: np.ndarray | None,
    drift: Mapping[str, float],
    freedom: Mapping[str, int],
    n_validation: int,
) -> Estimate:
    """Return the mean of calibrated ``confidences`` float[N] as the accuracy, with an interval.

    A calibrated model that is 80 % sure is right in 80 % of cases: confidence-based performance
    estimation (NannyML's CBPE; Guo et al. 2017 for the calibration). This holds while images
    resemble the validation images: if any stability index in ``drift`` exceeds chance, there is no
    estimate. ``freedom`` has the degrees of freedom of each index. Without drift, an index of N
    and V = ``n_validation`` images is about freedom * (1/N + 1/V). The interval includes the
    sampling error of the recent images and of the calibration.
    """
    if confidences is None:
        return Estimate(0, reason="this task's answers have no suitable confidence")
    count = len(confidences)
    if count < MIN_IMAGES:
        return Estimate(count, reason=f"fewer than {MIN_IMAGES} recent images")
    chance = 1 / count + 1 / max(n_validation, 1)
    for what, limit in MAX_DRIFT.items():
        if drift.get(what, 0.0) - freedom.get(what, 0) * chance > limit:
            return Estimate(count, reason=f"recent {what} differ too much from the validation set")
    value = float(np.mean(confidences))
    margin = Z_95 * math.sqrt(value * (1 - value) * chance)
    if margin > MAX_MARGIN:
        return Estimate(count, reason=f"only {n_validation} validation images, {count} recent")
    return Estimate(count, value, max(0.0, value - margin), min(1.0, value + margin))
