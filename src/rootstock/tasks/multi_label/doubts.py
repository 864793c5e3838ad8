"""Find labels that look wrong by confident learning, for each label separately."""

from __future__ import annotations

import numpy as np

from rootstock.heads.linear import PROBE_L2
from rootstock.tasks.multi_label.learning import LogisticSolver
from rootstock.tasks.multi_label.measures import sigmoid
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import Doubt

MAX_USUAL = 0.8
"""If all images with a label are nearly certain, a fairly certain doubt counts too."""


def doubt_labels(features: np.ndarray, targets: Targets, *, folds: int, seed: int) -> list[Doubt]:
    """Return the doubtful labels, the clearest doubts first; at most one per image.

    A label is missing if its out-of-fold probability reaches the mean of the images that have it,
    and wrong if its absence is as probable as for images that lack it (Northcutt et al. 2021,
    arXiv:1911.00068).
    """
    rows = targets.foldable()
    if not len(rows):
        return []
    some = targets.take(rows)
    counts = some.values.sum(axis=0)
    if not ((counts > 0) & (counts < len(rows))).any():
        return []
    outputs = LogisticSolver().out_of_fold(
        features[rows], some, folds=folds, l2=PROBE_L2, seed=seed
    )
    probabilities, present = sigmoid(outputs), some.values > 0
    best: dict[int, tuple[float, str, float]] = {}
    for k, name in enumerate(some.names):
        true = present[:, k]
        if min(true.sum(), (~true).sum()) < 2:
            continue
        for missing in (True, False):
            share = probabilities[:, k] if missing else 1 - probabilities[:, k]
            has = true if missing else ~true
            usual = min(MAX_USUAL, share[has].mean())
            for i in np.flatnonzero(~has & (share >= max(usual, 0.5))):
                surprise = float(share[i])
                if surprise > best.get(int(i), (0.0, "", 0.0))[0]:
                    text = f"with {name}" if missing else f"without {name}"
                    best[int(i)] = (surprise, text, surprise)
    order = sorted(best, key=lambda i: (-best[i][0], i))
    return [Doubt(int(rows[i]), best[i][1], round(best[i][2], 3)) for i in order]
