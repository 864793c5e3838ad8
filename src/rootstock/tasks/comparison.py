"""Compare champion and challenger on the same images, and decide at the gate."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from rootstock.metrics import percentile_interval
from rootstock.tasks.metric_words import name_metric


@dataclass(frozen=True)
class Comparison:
    """Scores on the same ``n`` images, and the decision of the gate.

    ``p_value`` comes from the task's paired test. The two counts are the images that only one of
    the models gets right, 0 for tasks whose answers are not right or wrong. ``gain_interval`` is
    the 95 % interval of the challenger's gain.
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
    gain_interval: tuple[float, float] | None = None

    @classmethod
    def impossible(cls, why: str, *, metric: str) -> Comparison:
        """Return the outcome if the two cannot be compared: the champion stays."""
        return cls(metric, None, None, 0, 0, 0, None, False, f"not promoted: {why}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return dataclasses.asdict(self)


def decide_gate(
    metric: str,
    champion: float,
    challenger: float,
    *,
    interval: tuple[float, float],
    rule: str,
    min_gain: float,
    count: int,
    lower_is_better: bool = False,
) -> tuple[bool, str]:
    """Return whether the challenger is promoted, with the reason in one sentence.

    ``interval`` is the 95 % interval of the gain on ``count`` test images. If ``lower_is_better``,
    the gain is how far the metric falls. The rule `better` requires the whole interval to be above
    ``min_gain``, `not_worse` that not all of it is below, and `higher` that the measured gain is
    above.
    """
    gain = round(champion - challenger if lower_is_better else challenger - champion, 9)
    low, high = interval
    wins = {"better": low > min_gain, "not_worse": high >= min_gain, "higher": gain > min_gain}
    promote = wins[rule]
    measured = (
        f"{name_metric(metric)} is {challenger:.4f} against {champion:.4f} on the same "
        f"{count} test images, a gain of {gain:+z.4f} (95 % interval {low:+z.4f} to {high:+z.4f})"
    )
    than = f" by more than {min_gain:g}" if min_gain else ""
    if rule == "higher":
        finding = f"its score {'is' if promote else 'is not'} higher{than}"
    elif low > min_gain:
        finding = f"it is better{than}, beyond chance"
    elif high < min_gain:
        worse = f"its gain is below {min_gain:g}" if than else "it is worse"
        finding = f"{worse}, beyond chance"
    else:
        finding = f"these images do not show whether it is better{than}"
    verdict = "promoted" if promote else "not promoted"
    return promote, f"{verdict}: {measured}; {finding} (rule `{rule}`)."


def compare_scores(
    metric: str,
    champion: tuple[np.ndarray, np.ndarray],
    challenger: tuple[np.ndarray, np.ndarray],
    *,
    rule: str,
    min_gain: float,
    count: int,
    lower_is_better: bool = False,
) -> Comparison:
    """Compare two models by their metric on all images, [1], and on resampled images, [R].

    The draws are the same for both: a paired bootstrap.
    """
    gains = challenger[1] - champion[1]
    interval = percentile_interval(-gains if lower_is_better else gains)
    scores = float(champion[0][0]), float(challenger[0][0])
    promote, reason = decide_gate(
        metric,
        *scores,
        interval=interval,
        rule=rule,
        min_gain=min_gain,
        count=count,
        lower_is_better=lower_is_better,
    )
    return Comparison(
        metric=metric,
        champion=round(scores[0], 6),
        challenger=round(scores[1], 6),
        n=count,
        only_champion_right=0,
        only_challenger_right=0,
        p_value=None,
        promote=promote,
        reason=reason,
        gain_interval=(round(interval[0], 6), round(interval[1], 6)),
    )
