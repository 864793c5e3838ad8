"""Comparison: champion and challenger on the same images, and what the gate decides."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Comparison:
    """Scores on the same ``n`` images, and what the gate decides from them.

    ``p_value`` belongs to the task's paired test; the two counts are the images that only one of
    the models gets right, 0 for tasks whose answers are not right or wrong.
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
        """Return what JSON holds."""
        return dataclasses.asdict(self)


def explain_gate(
    metric: str,
    champion: float,
    challenger: float,
    *,
    gain: float,
    min_gain: float,
    count: int,
    p_value: float,
) -> str:
    """Return the gate's decision and its reason in one sentence."""
    verdict = "promoted" if gain > min_gain else "not promoted"
    needed = f"more than {min_gain:g} is asked for" if min_gain else "it must be better"
    chance = "could well be chance" if p_value > 0.05 else "is hardly chance"
    doubt = f"; a difference like this {chance} (p = {p_value:.2g})" if gain else ""
    return (
        f"{verdict}: {metric.replace('_', ' ')} {challenger:.4f} against {champion:.4f} on the "
        f"same {count} test images, a gain of {gain:+.4f}; {needed}{doubt}."
    )
