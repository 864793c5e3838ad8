"""Compare champion and challenger as segmenters, with an interval of the gain."""

from __future__ import annotations

import numpy as np

from rootstock.metrics import draw_counts
from rootstock.tasks.comparison import Comparison, compare_scores
from rootstock.tasks.segmentation.measures import Counts, mean_overlap
from rootstock.tasks.targets import Targets


def compare(
    champion: np.ndarray,
    challenger: np.ndarray,
    targets: Targets,
    *,
    metric: str,
    rule: str,
    min_gain: float,
) -> Comparison:
    """Compare decisions [N,K,G,G] of two models; the interval is a paired bootstrap of groups."""
    draws = draw_counts(targets.groups, len(targets), width=len(targets.names))

    def score(decisions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = Counts.of(decisions, targets.values)
        if metric == "pixel_accuracy":
            return counts.accuracies(), counts.accuracies(draws)
        return mean_overlap(counts.overlaps()), mean_overlap(counts.overlaps(draws))

    return compare_scores(
        metric,
        score(champion),
        score(challenger),
        rule=rule,
        min_gain=min_gain,
        count=len(targets),
    )
