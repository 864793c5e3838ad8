"""Compare champion and challenger as classifiers, with an interval of the gain."""

from __future__ import annotations

import numpy as np
from scipy.stats import binomtest

from rootstock.metrics import are_grouped, bootstrap_interval, newcombe_interval
from rootstock.tasks.comparison import Comparison, decide_gate
from rootstock.tasks.single_label import measures


def compare(
    champion: np.ndarray,
    challenger: np.ndarray,
    labels: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    metric: str,
    rule: str,
    min_gain: float,
) -> Comparison:
    """Compare probabilities float[N,K] of two models for labels int64[N].

    ``metric`` is accuracy, balanced_accuracy or macro_f1; see `decide_gate` for ``rule`` and
    ``min_gain``. The interval of the gain is Newcombe's for the accuracy, as on the page of
    `rootstock compare`. For other metrics, and if ``groups`` int64[N] have several images, it is a
    paired bootstrap. The p-value comes from McNemar's exact test on the images that only one of
    the two gets right.
    """
    first, second = champion.argmax(axis=1), challenger.argmax(axis=1)
    n_classes = champion.shape[1]

    def score(predicted: np.ndarray, rows: np.ndarray | slice = slice(None)) -> float:
        return _score(metric, predicted[rows], labels[rows], n_classes)

    right_first, right_second = first == labels, second == labels
    only_first = int((right_first & ~right_second).sum())
    only_second = int((right_second & ~right_first).sum())
    if metric == "accuracy" and not are_grouped(groups):
        both = int((right_first & right_second).sum())
        neither = len(labels) - both - only_first - only_second
        interval = newcombe_interval(both, only_second, only_first, neither)
    else:
        interval = bootstrap_interval(
            lambda rows: score(second, rows) - score(first, rows), strata=labels, groups=groups
        )
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    scores = (score(first), score(second))
    promote, reason = decide_gate(
        metric, *scores, interval=interval, rule=rule, min_gain=min_gain, count=len(labels)
    )
    return Comparison(
        metric=metric,
        champion=round(scores[0], 6),
        challenger=round(scores[1], 6),
        n=len(labels),
        only_champion_right=only_first,
        only_challenger_right=only_second,
        p_value=round(p_value, 6),
        promote=promote,
        reason=reason,
        gain_interval=(round(interval[0], 6), round(interval[1], 6)),
    )


def _score(metric: str, predicted: np.ndarray, labels: np.ndarray, n_classes: int) -> float:
    if metric == "accuracy":
        return measures.accuracy(predicted, labels)
    if metric == "balanced_accuracy":
        return measures.balanced_accuracy(predicted, labels, n_classes)
    return measures.macro_f1(predicted, labels, n_classes)
