"""Labels that may apply, and labels that certainly apply, with a stated error."""

from __future__ import annotations

import math

import numpy as np


def rank_scores(probabilities: np.ndarray, present: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the sets need to know of the validation images [V,K].

    ``with_label`` float32[V,K]: for each label, 1 - its probability on the images that have it,
    ascending, then infinity; ``without_label``: its probability on the others in the same form.
    """
    true = present > 0
    return {
        "with_label": np.sort(np.where(true, 1 - probabilities, np.inf), axis=0).astype(np.float32),
        "without_label": np.sort(np.where(true, np.inf, probabilities), axis=0).astype(np.float32),
    }


def limit(scores: np.ndarray, coverage: float) -> np.ndarray:
    """Return for each label the score float32[K] that ``coverage`` of new images do not exceed.

    Split conformal prediction for each label and each answer separately (Vovk 2012); infinity if
    there are too few images.
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
    """Return the numbers of the labels of one image float[K] that cannot be excluded."""
    return np.flatnonzero(1 - probabilities <= limit(with_label, coverage))


def certain_labels(
    probabilities: np.ndarray, coverage: float, without_label: np.ndarray
) -> np.ndarray:
    """Return the numbers of the labels of one image float[K] whose absence can be excluded."""
    return np.flatnonzero(probabilities > limit(without_label, coverage))
