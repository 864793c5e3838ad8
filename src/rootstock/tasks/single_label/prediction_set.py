"""Prediction sets: classes that include the true one in a stated share of cases."""

from __future__ import annotations

import math

import numpy as np


def prediction_set(probabilities: np.ndarray, coverage: float, scores: np.ndarray) -> np.ndarray:
    """Return class numbers, most probable first, that include the true one in ``coverage`` of
    cases.

    For one row float[K]. ``scores`` float32[V], ascending, are 1 - probability of the true class
    of the validation images (split conformal prediction, Sadinle et al. 2019). With few of them a
    high coverage includes every class.
    """
    order = np.argsort(-probabilities, kind="stable")
    rank = math.ceil((len(scores) + 1) * coverage)
    if rank > len(scores):
        return order
    chosen = 1 - probabilities[order] <= scores[rank - 1]
    chosen[0] = True
    return order[chosen]
