"""Champion and challenger on the same test images: may the challenger take over?"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from rootstock import metrics as measures


@dataclass(frozen=True)
class Comparison:
    """Scores on the same ``n`` images, and what the gate decides from them.

    ``p_value`` is McNemar's exact test on the images that only one of the two gets right.
    """

    metric: str
    champion: float | None
    challenger: float | None
    n: int
    only_champion_right: int
    only_challenger_right: int
    p_value: float | None
    promote: bool
    reason: str

    @classmethod
    def impossible(cls, why: str, *, metric: str) -> Comparison:
        """The two cannot be compared, so the champion stays."""
        return cls(metric, None, None, 0, 0, 0, None, False, f"not promoted: {why}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return dataclasses.asdict(self)


def compare(
    champion: np.ndarray,
    challenger: np.ndarray,
    labels: np.ndarray,
    *,
    metric: str,
    min_gain: float,
) -> Comparison:
    """Compare probabilities float[N,K] of two models for labels int[N].

    The challenger is promoted if its ``metric`` (accuracy, balanced_accuracy or macro_f1) is
    better by more than ``min_gain``.
    """
    first, second = champion.argmax(axis=1), challenger.argmax(axis=1)
    n_classes = champion.shape[1]
    scores = [_score(metric, predicted, labels, n_classes) for predicted in (first, second)]
    gain = round(scores[1] - scores[0], 9)
    only_first = int(((first == labels) & (second != labels)).sum())
    only_second = int(((second == labels) & (first != labels)).sum())
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    promote = gain > min_gain
    return Comparison(
        metric=metric,
        champion=round(scores[0], 6),
        challenger=round(scores[1], 6),
        n=len(labels),
        only_champion_right=only_first,
        only_challenger_right=only_second,
        p_value=round(p_value, 6),
        promote=promote,
        reason=_explain(metric, scores, gain, min_gain, len(labels), p_value, promote),
    )


def _score(metric: str, predicted: np.ndarray, labels: np.ndarray, n_classes: int) -> float:
    if metric == "accuracy":
        return measures.accuracy(predicted, labels)
    if metric == "balanced_accuracy":
        return measures.balanced_accuracy(predicted, labels, n_classes)
    return measures.macro_f1(predicted, labels, n_classes)


def _explain(
    metric: str,
    scores: list[float],
    gain: float,
    min_gain: float,
    count: int,
    p_value: float,
    promote: bool,
) -> str:
    verdict = "promoted" if promote else "not promoted"
    needed = f"more than {min_gain:g} is asked for" if min_gain else "it must be better"
    chance = "could well be chance" if p_value > 0.05 else "is hardly chance"
    doubt = f"; a difference like this {chance} (p = {p_value:.2g})" if gain else ""
    return (
        f"{verdict}: {metric.replace('_', ' ')} {scores[1]:.4f} against {scores[0]:.4f} on the "
        f"same {count} test images, a gain of {gain:+.4f}; {needed}{doubt}."
    )
