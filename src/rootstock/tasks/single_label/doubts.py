"""Labels that look wrong, by confident learning."""

from __future__ import annotations

import numpy as np

from rootstock.heads.linear import PROBE_L2
from rootstock.tasks.single_label.learning import SoftmaxSolver
from rootstock.tasks.single_label.measures import softmax
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import Doubt

MAX_USUAL = 0.8
"""If all images of a class are nearly certain, a fairly certain doubt counts too."""


def doubt_labels(features: np.ndarray, targets: Targets, *, folds: int, seed: int) -> list[Doubt]:
    """Return the labels that confident learning doubts, the clearest doubts first.

    A class is possible if its out-of-fold probability reaches the mean of the images of that
    class; a label is doubtful if the most probable of these is another class (Northcutt et al.
    2021, arXiv:1911.00068).
    """
    rows = targets.foldable()
    if not len(rows):
        return []
    some = targets.take(rows)
    present, numbers = np.unique(some.values, return_inverse=True)
    names = tuple(targets.names[k] for k in present)
    outputs = SoftmaxSolver().out_of_fold(
        features[rows],
        Targets(numbers, names, some.strata, some.groups),
        folds=folds,
        l2=PROBE_L2,
        seed=seed,
    )
    probabilities = softmax(outputs)
    own = probabilities[np.arange(len(rows)), numbers]
    usual = np.array([own[numbers == k].mean() for k in range(len(present))])
    usual = np.minimum(usual, MAX_USUAL)
    possible = np.where(probabilities >= usual, probabilities, 0.0)
    best = possible.argmax(axis=1)
    doubted = np.flatnonzero((possible.max(axis=1) > 0) & (best != numbers))
    order = doubted[np.argsort(own[doubted] - probabilities[doubted, best[doubted]], kind="stable")]
    return [
        Doubt(int(rows[i]), names[best[i]], round(float(probabilities[i, best[i]]), 3))
        for i in order
    ]
