"""Champion and challenger as classifiers: which is better, and how surely."""

from __future__ import annotations

import numpy as np
from scipy.stats import binomtest

from rootstock.tasks.comparison import Comparison, explain_gate
from rootstock.tasks.single_label import measures


def compare(
    champion: np.ndarray,
    challenger: np.ndarray,
    labels: np.ndarray,
    *,
    metric: str,
    min_gain: float,
) -> Comparison:
    """Compare probabilities float[N,K] of two models for labels int64[N].

    The challenger is promoted if its ``metric`` (accuracy, balanced_accuracy or macro_f1) is
    better by more than ``min_gain``. The p-value is that of McNemar's exact test on the images
    that only one of the two gets right.
    """
    first, second = champion.argmax(axis=1), challenger.argmax(axis=1)
    n_classes = champion.shape[1]
    scores = [_score(metric, predicted, labels, n_classes) for predicted in (first, second)]
    gain = round(scores[1] - scores[0], 9)
    only_first = int(((first == labels) & (second != labels)).sum())
    only_second = int(((second == labels) & (first != labels)).sum())
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return Comparison(
        metric=metric,
        champion=round(scores[0], 6),
        challenger=round(scores[1], 6),
        n=len(labels),
        only_champion_right=only_first,
        only_challenger_right=only_second,
        p_value=round(p_value, 6),
        promote=gain > min_gain,
        reason=explain_gate(
            metric, *scores, gain=gain, min_gain=min_gain, count=len(labels), p_value=p_value
        ),
    )


def _score(metric: str, predicted: np.ndarray, labels: np.ndarray, n_classes: int) -> float:
    if metric == "accuracy":
        return measures.accuracy(predicted, labels)
    if metric == "balanced_accuracy":
        return measures.balanced_accuracy(predicted, labels, n_classes)
    return measures.macro_f1(predicted, labels, n_classes)
