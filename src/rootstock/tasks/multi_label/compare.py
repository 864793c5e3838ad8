"""Compare champion and challenger with several labels, with an interval of the gain."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rootstock.metrics import draw_counts
from rootstock.tasks.comparison import Comparison, compare_scores
from rootstock.tasks.multi_label import measures
from rootstock.tasks.targets import Targets

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""The metric float64[R] of decisions [N,2,K] in draws [R,N]."""


def score_function(metric: str, targets: Targets) -> Score:
    """Return the function that measures ``metric`` on these images."""
    present = targets.values

    def score(decisions: np.ndarray, weights: np.ndarray) -> np.ndarray:
        probabilities, chosen = decisions[:, 0], decisions[:, 1]
        if metric == "mean_average_precision":
            return measures.mean_over_labels(
                measures.label_precisions(probabilities, present, weights)
            )
        if metric == "exact_match":
            return measures.exact_match(chosen, present, weights)
        counts = measures.Counts.of(chosen, present, weights)
        return counts.micro_f1 if metric == "micro_f1" else counts.macro_f1

    return score


def compare(
    champion: np.ndarray,
    challenger: np.ndarray,
    targets: Targets,
    *,
    metric: str,
    rule: str,
    min_gain: float,
) -> Comparison:
    """Compare the decisions [N,2,K] of two models; the interval is a paired bootstrap of groups."""
    score = score_function(metric, targets)
    weights = draw_counts(targets.groups, len(targets), width=targets.values.shape[1])
    return compare_scores(
        metric,
        (score(champion, np.ones((1, len(targets)))), score(champion, weights)),
        (score(challenger, np.ones((1, len(targets)))), score(challenger, weights)),
        rule=rule,
        min_gain=min_gain,
        count=len(targets),
    )
