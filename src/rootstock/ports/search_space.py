"""Search spaces: ranges from which trials beyond the planned ones are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """Numbers from ``low`` to ``high``, uniform, or uniform in their logarithms."""

    low: float
    high: float
    log: bool = False


SearchSpace = Mapping[str, Interval | tuple[str, ...]]
"""Maps a parameter to an interval or a list of choices."""


@dataclass(frozen=True)
class Exploration:
    """Draw from ``space`` until there are ``trials`` in total, including the planned ones."""

    space: SearchSpace
    trials: int
    seed: int


def draw(space: SearchSpace, random: np.random.Generator) -> dict[str, float | str]:
    """Return one point of the space; every parameter is drawn independently."""
    return {name: _draw_one(values, random) for name, values in space.items()}


def _draw_one(values: Interval | tuple[str, ...], random: np.random.Generator) -> float | str:
    if isinstance(values, tuple):
        return values[random.integers(len(values))]
    if not values.log:
        return float(random.uniform(values.low, values.high))
    drawn = float(np.exp(random.uniform(np.log(values.low), np.log(values.high))))
    return min(max(drawn, values.low), values.high)  # exp and log are rounded
