"""Labels that may apply, and labels that surely do, with a stated error."""

from __future__ import annotations

import math

import numpy as np


def rank_scores(probabilities: np.ndarray, present: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the sets need of the validation images [V,K].

    ``with_label`` float32[V,K]: for each label, 1 - its probability of the images that have it,
    rising, then infinity; ``without_label``: its probability of the others in the same way.
    """
    true = present > 0
    return {
        "with_label": np.sort(np.where(true, 1 - probabilities, np.inf), axis=0).astype(np.float32),
        "without_label": np.sort(np.where(true, np.inf, probabilities), axis=0).astype(np.float32),
    }


def limit(scores: np.ndarray, coverage: float) -> np.ndarray:
    """Return for each label the score float32[K] that ``coverage`` of new images do not exceed.

    Split conformal prediction for each label and answer by itself (Vovk 2012); infinity where
    there are too few images for that.
    """
    counts = np.isfinite(scores).sum(axis=0)
    ranks = np.array([math.ceil((count + 1) * coverage) for count in counts])
    limits = np.full(scores.shape[1], np.inf, np.float32)
    known = ranks <= counts
    limits[known] = scores[ranks[known] - 1, np.flatnonzero(known)]
    return limits


def possible_labels(
    probabilities: np.ndarray, coverage: float, with_label: np.ndarray
) -> np.ndarray:
    """Return numbers of the labels of one image float[K] that cannot be ruled out."""
    return np.flatnonzero(1 - probabilities <= limit(with_label, coverage))


def certain_labels(
    probabilities: np.ndarray, coverage: float, without_label: np.ndarray
) -> np.ndarray:
    """Return numbers of the labels of one image float[K] whose absence can be ruled out."""
    return np.flatnonzero(probabilities > limit(without_label, coverage))
