"""Compare champion and challenger as localisers, with an interval of the gain."""

from __future__ import annotations

import numpy as np
from scipy.stats import binomtest, wilcoxon

from rootstock.metrics import bootstrap_interval, newcombe_interval
from rootstock.tasks.comparison import Comparison, decide_gate
from rootstock.tasks.localisation import measures
from rootstock.tasks.localisation.boxes import overlap


def compare(
    champion: np.ndarray,
    challenger: np.ndarray,
    values: np.ndarray,
    *,
    metric: str,
    rule: str,
    min_gain: float,
) -> Comparison:
    """Compare the decisions [N,K+4] of two models for values [N,5].

    Shares of right images have Newcombe's interval and McNemar's exact test; the mean IoU has a
    paired bootstrap and Wilcoxon's signed-rank test.
    """
    first, second = (_scores(metric, decisions, values) for decisions in (champion, challenger))
    only_first = only_second = 0
    if metric == "mean_iou":
        interval = bootstrap_interval(
            lambda rows: float((second[rows] - first[rows]).mean()), strata=values[:, 0]
        )
        p_value = float(wilcoxon(second, first).pvalue) if (first != second).any() else 1.0
    else:
        only_first = int((first > second).sum())
        only_second = int((second > first).sum())
        both = int((first * second).sum())
        interval = newcombe_interval(
            both, only_second, only_first, len(values) - both - only_first - only_second
        )
        differing = only_first + only_second
        p_value = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    scores = (float(first.mean()), float(second.mean()))
    promote, reason = decide_gate(
        metric, *scores, interval=interval, rule=rule, min_gain=min_gain, count=len(values)
    )
    return Comparison(
        metric=metric,
        champion=round(scores[0], 6),
        challenger=round(scores[1], 6),
        n=len(values),
        only_champion_right=only_first,
        only_challenger_right=only_second,
        p_value=round(p_value, 6),
        promote=promote,
        reason=reason,
        gain_interval=(round(interval[0], 6), round(interval[1], 6)),
    )


def _scores(metric: str, decisions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the score of each image, float64[N]."""
    if metric == "mean_iou":
        return overlap(decisions[:, -4:], values[:, 1:])
    if metric == "accuracy":
        return (decisions[:, :-4].argmax(axis=1) == values[:, 0]).astype(float)
    return measures.hits(decisions, values).astype(float)
