"""The nearest class mean as a linear head, for classes with few images.

Images are compared by the cosine of their centred features with each class' mean (SimpleShot, Wang
et al. 2019, arXiv:1911.04623; class means as prototypes: Snell et al. 2017, arXiv:1703.05175).
The length of an image's features is the same factor for all classes, so the nearest mean by cosine
is the largest output of a linear head.
"""

from __future__ import annotations

import numpy as np

from rootstock.heads.linear import LinearHead

_MIN_LENGTH = 1e-12


def fit_prototypes(features: np.ndarray, classes: np.ndarray) -> LinearHead:
    """Return a head whose outputs for features [N,D] approximate the cosines with the class means.

    ``classes`` int[N] are 0..K-1, each with at least one image.
    """
    centred = features.astype(np.float64)
    mean = centred.mean(axis=0)
    centred -= mean
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    directions = centred / np.maximum(lengths, _MIN_LENGTH)
    means = np.stack([directions[classes == one].mean(axis=0) for one in np.unique(classes)])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), _MIN_LENGTH)
    weights = means / max(float(lengths.mean()), _MIN_LENGTH)
    return LinearHead(weights.astype(np.float32), (-weights @ mean).astype(np.float32))
