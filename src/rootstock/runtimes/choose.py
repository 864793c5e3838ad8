"""Time several ways to compute the same result in turns, and choose the fastest.

Measured times differ from run to run. Nothing in a plan may depend on them: two identical runs
would give different plans.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TypeVar

CLEAR_LEAD = 1.05
"""Another way is used only if it is faster by this factor."""
ROUNDING_LEAD = 1.2
"""The same factor for a step in bfloat16, which rounds activations to 8 bits of fraction."""
MAX_BATCH_TIME_SHARE = 0.9
"""The same factor for a larger batch, per image: it costs waiting time and memory."""
HOPELESS_FACTOR = 2.0
"""A way that takes this many times as long as the fastest is not timed again."""
ROUNDS, SECONDS_PER_WAY = 3, 0.5
MAX_SECONDS_PER_WAY = 10.0
"""After this time no further round begins, on a slow or busy machine."""
LATENCY_ROUNDS = 9
"""Rounds for the time per image that people see; the median counts."""

Way = TypeVar("Way")


def time_in_turns(
    ways: Mapping[Way, Callable[[], object]],
    *,
    rounds: int = ROUNDS,
    seconds_per_way: float = 0.0,
    warm_ups: int = 1,
    drop_hopeless: bool = False,
    summary: Callable[[list[float]], float] = min,
) -> dict[Way, float]:
    """Return the seconds that each way takes, by default in its best round.

    The ways take turns, so that other load on the machine, which only ever adds time, affects all
    of them. Rounds continue for at least ``rounds`` and ``seconds_per_way``, but none begins after
    `MAX_SECONDS_PER_WAY`. With ``drop_hopeless``, a way above `HOPELESS_FACTOR` is left out of
    later rounds.
    """
    for run in ways.values():
        for _ in range(warm_ups):
            run()
    times: dict[Way, list[float]] = {way: [] for way in ways}
    n_rounds, limit, started = 0, math.inf, perf_counter()
    while n_rounds < rounds or perf_counter() - started < seconds_per_way * len(ways):
        for way, run in ways.items():
            if min(times[way], default=0.0) <= limit:
                begun = perf_counter()
                run()
                times[way].append(max(perf_counter() - begun, 1e-9))
        n_rounds += 1
        if perf_counter() - started > MAX_SECONDS_PER_WAY * len(ways):
            break
        if drop_hopeless:
            limit = HOPELESS_FACTOR * min(map(min, times.values()))
    return {way: summary(laps) for way, laps in times.items()}


def choose_fastest(
    rates: Mapping[Way, float], lead: Callable[[Way, Way], float] | None = None
) -> Way:
    """Return the fastest way, or the first of those that it does not clearly beat.

    ``lead`` gives the factor by which a way must be faster than the best one before it; None:
    `CLEAR_LEAD`.
    """
    best, *others = rates
    for way in others:
        if rates[way] >= (lead(best, way) if lead else CLEAR_LEAD) * rates[best]:
            best = way
    return best
