"""Fit the planner's thresholds to the ledger, as settings for params.yaml."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from rootstock.assess.size import size_class
from rootstock.config.choices import Shares, SizeClass, Strategy
from rootstock.plan import rules
from rootstock.plan.ledger import LedgerRow

PRIOR_RUNS = 5
"""The prior counts like this many runs, so that one unusual run does not outweigh it.

A judgement, not fitted to any set."""
MIN_DATA_SETS = 3
"""With fewer data sets on which strategies were compared, the thresholds do not change."""
SMALL_BELOW = (250, 500, 750, 1000, 1500, 2000, 3000, 5000)
SIMILAR_FROM = tuple(round(0.1 * step, 1) for step in range(1, 10))


@dataclass(frozen=True)
class Calibration:
    """The fitted settings; ``regret`` is the table's mean regret in points, old and new.

    ``coverage``: share of runs whose accuracy was in the expected range.
    """

    n_rows: int
    n_sets: int
    shares: Shares
    small_below: int
    similar_from: float
    regret: tuple[float, float] | None
    coverage: float | None

    def settings(self) -> dict[str, Any]:
        """Return the settings in the form of params.yaml."""
        return {
            "assess": {"small_below": self.small_below, "similar_from": self.similar_from},
            "plan": {"shares": {size: list(pair) for size, pair in self.shares.items()}},
        }


def calibrate(
    rows: Sequence[LedgerRow],
    *,
    shares: Shares,
    small_below: int,
    similar_from: float,
    small_per_class_below: int,
    large_from: int,
) -> Calibration:
    """Fit the shares and the first two thresholds.

    A value does not change if the ledger has too few runs for it.
    """
    sizes = partial(size_class, small_per_class_below=small_per_class_below, large_from=large_from)
    compared = _compared(rows)
    thresholds, regret = _fit_thresholds(compared, (small_below, similar_from), sizes)
    in_range = [row.as_expected for row in rows if row.as_expected is not None]
    return Calibration(
        n_rows=len(rows),
        n_sets=len(compared),
        shares=_fit_shares(rows, shares),
        small_below=thresholds[0],
        similar_from=thresholds[1],
        regret=regret,
        coverage=float(np.mean(in_range)) if in_range else None,
    )


def _fit_shares(rows: Iterable[LedgerRow], prior: Shares) -> Shares:
    """Return the 10th and 90th percentile of the observed shares, drawn towards the prior."""
    observed: dict[SizeClass, list[float]] = defaultdict(list)
    for row in rows:
        if row.probe_last is None or row.probe_last >= 1 or not rules.is_finetune(row.strategy):
            continue
        share = 1.0 - (1.0 - row.test_accuracy) / (1.0 - row.probe_last)
        bonus = 0.0 if row.similar else rules.DISSIMILAR_BONUS
        observed[row.size_class].append(max(-1.0, share - bonus))
    return {size: _blend(observed[size], pair) for size, pair in prior.items()}


def _blend(observed: Sequence[float], prior: tuple[float, float]) -> tuple[float, float]:
    if not observed:
        return prior
    weight = len(observed) / (len(observed) + PRIOR_RUNS)
    fitted = np.quantile(observed, (0.1, 0.9))
    low, high = (weight * new + (1 - weight) * old for new, old in zip(fitted, prior, strict=True))
    return round(float(low), 3), round(float(high), 3)


Compared = Sequence[tuple[LedgerRow, Mapping[Strategy, float]]]
Sizes = Callable[..., SizeClass]
"""`size_class` with everything fixed except ``small_below``."""


def _compared(rows: Iterable[LedgerRow]) -> Compared:
    """Return a row of each data set and backbone with several strategies, and their accuracies."""
    groups: dict[tuple[str, str], list[LedgerRow]] = defaultdict(list)
    for row in rows:
        groups[row.data_hash, row.weights_sha256].append(row)
    compared = []
    for members in groups.values():
        scores: dict[Strategy, list[float]] = defaultdict(list)
        for row in members:
            scores[row.strategy].append(row.test_accuracy)
        if len(scores) >= 2:
            compared.append((members[0], {name: float(np.mean(s)) for name, s in scores.items()}))
    return compared


def _fit_thresholds(
    compared: Compared, current: tuple[int, float], sizes: Sizes
) -> tuple[tuple[int, float], tuple[float, float] | None]:
    if len(compared) < MIN_DATA_SETS:
        return current, None
    before = _mean_regret(compared, sizes, *current)
    options = [current, *itertools.product(SMALL_BELOW, SIMILAR_FROM)]
    # min takes the first of equals: the current values, then the nearest ones.
    options.sort(key=lambda option: (option != current, _distance(option, current)))
    best = min(options, key=lambda option: _mean_regret(compared, sizes, *option))
    return best, (round(100 * before, 2), round(100 * _mean_regret(compared, sizes, *best), 2))


def _distance(option: tuple[int, float], current: tuple[int, float]) -> float:
    return abs(np.log2(option[0] / current[0])) + 5 * abs(option[1] - current[1])


def _mean_regret(compared: Compared, sizes: Sizes, small_below: int, similar_from: float) -> float:
    """Return the table's mean loss against the best strategy on record.

    A strategy that was not tried on a set counts like the worst one that was.
    """
    regrets = []
    for row, scores in compared:
        size = sizes(row.n_train, row.median_per_class, small_below=small_below)
        choice = rules.choose_strategy(size, similar=row.similarity >= similar_from)
        regrets.append(max(scores.values()) - scores.get(choice, min(scores.values())))
    return float(np.mean(regrets))
