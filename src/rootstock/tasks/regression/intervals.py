"""Intervals that contain the true number in a stated share of cases."""

from __future__ import annotations

import math

import numpy as np


def interval_width(errors: np.ndarray, coverage: float) -> float | None:
    """Return the largest distance of the true number from the answer in ``coverage`` of cases.

    ``errors`` float32[V], ascending, are those of the validation images (split conformal
    prediction, Lei et al. 2018). None: there are too few for this coverage.
    """
    rank = math.ceil((len(errors) + 1) * coverage)
    return None if rank > len(errors) else float(errors[max(rank, 1) - 1])
