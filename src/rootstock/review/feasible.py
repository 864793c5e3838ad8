"""The accuracy that the features allow, and the number of images for a better one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rootstock.heads.linear import PROBE_L2
from rootstock.metrics import standard_error
from rootstock.review.record import CurvePoint, Feasibility, Target
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import Task

CURVE_SHARES = (0.125, 0.25, 0.5, 1.0)
MAX_DRAWS = 3
EXTRAPOLATED_TIMES = (2, 4)
"""The curve extends to this many times the images; beyond it, a power law is a guess."""
MAX_TIMES = 100
"""A target that needs more than this many times the images is out of reach."""
N_BOOTSTRAPS = 200
EXPONENTS = np.linspace(0.005, 1.0, 200)
MIN_STRATUM_IMAGES = 8
"""Images of the rarest stratum that a curve needs."""


def measure_feasibility(
    task: Task,
    features: np.ndarray,
    targets: Targets,
    *,
    folds: int,
    goals: Sequence[float],
    seed: int,
) -> Feasibility | None:
    """Return the ceiling and the learning curve of features [N,C]; None for too few images."""
    _, counts = np.unique(targets.strata, return_counts=True)
    if len(counts) < 2 or counts.min() < MIN_STRATUM_IMAGES:
        return None
    ceiling = task.score_bound(features, targets)
    sizes, errors = _measure_curve(task, features, targets, folds, seed)
    curves = _fit(sizes, np.transpose(errors))
    measured = [_point(size, 1.0 - values) for size, values in zip(sizes, errors, strict=True)]
    ahead = [sizes[-1] * times for times in EXTRAPOLATED_TIMES]
    extrapolated = [_point(n, 1.0 - _power_law(n, *curves.T)) for n in ahead]
    best = 1.0 - float(np.mean(errors[-1]))
    return Feasibility(
        # The bound holds for unlimited images; if measurements exceed it, they count.
        ceiling=round(max(ceiling, best, extrapolated[-1].accuracy), 4),
        measured=tuple(measured),
        extrapolated=tuple(extrapolated),
        targets=tuple(
            Target(accuracy=goal, n_images=_images_for(goal, curves, sizes[-1]))
            for goal in goals
            if goal > best
        ),
        score_name=task.score_name,
    )


def _measure_curve(
    task: Task,
    features: np.ndarray,
    targets: Targets,
    folds: int,
    seed: int,
) -> tuple[list[int], list[np.ndarray]]:
    """Sizes of the training part, and errors [N_BOOTSTRAPS] at them: draws with binomial noise."""
    sizes, errors = [], []
    solver = task.head()
    random = np.random.default_rng(seed)
    groups = np.arange(len(targets)) if targets.groups is None else targets.groups
    for share in CURVE_SHARES:
        draws = [
            _draw(targets.strata, groups, share, seed + n)
            for n in range(MAX_DRAWS if share < 1 else 1)
        ]
        scores = [
            solver.probe(features[rows], targets.take(rows), folds=folds, l2=PROBE_L2, seed=seed)[0]
            for rows in draws
        ]
        drawn = random.choice(scores, N_BOOTSTRAPS)
        noise = standard_error(float(np.mean(scores)), len(draws[0]))
        sizes.append(round(len(draws[0]) * (folds - 1) / folds))
        errors.append(np.clip(1.0 - drawn - noise * random.normal(size=N_BOOTSTRAPS), 1e-4, 1.0))
    return sizes, errors


def _draw(strata: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return the rows of a stratified part of the images, in whole groups."""
    random = np.random.default_rng(seed)
    parts = []
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        _, firsts = np.unique(groups[members], return_index=True)
        order = random.permutation(members[np.sort(firsts)])
        chosen = order[: max(2, round(share * len(order)))]
        parts.append(members[np.isin(groups[members], groups[chosen])])
    return np.sort(np.concatenate(parts))


def _fit(sizes: Sequence[int], errors: np.ndarray) -> np.ndarray:
    """Fit curves [B,3] of a, b, c in error = a n^-b + c to each row of errors [B,S].

    0 < b <= 1, and c is between 0 and the smallest error, so a is not negative. For a given b, a
    and c have a closed form (variable projection, Golub and Pereyra 1973); the best b of a grid is
    used.
    """
    powers = np.array(sizes, float) ** -EXPONENTS[:, None]
    centred = powers - powers.mean(axis=1, keepdims=True)
    slopes = errors @ centred.T / np.square(centred).sum(axis=1)
    offsets = errors.mean(axis=1, keepdims=True) - slopes * powers.mean(axis=1)
    offsets = np.clip(offsets, 0.0, errors.min(axis=1, keepdims=True))[..., None]
    above = errors[:, None] - offsets
    slopes = (above * powers).sum(axis=2) / np.square(powers).sum(axis=1)
    missed = np.square(above - slopes[..., None] * powers).sum(axis=2)
    best = missed.argmin(axis=1)
    rows = np.arange(len(errors))
    return np.stack([slopes[rows, best], EXPONENTS[best], offsets[rows, best, 0]], axis=1)


def _power_law(n: np.ndarray | float, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return a * np.asarray(n, float) ** -b + c


def _point(n_images: int, accuracies: np.ndarray) -> CurvePoint:
    low, high = np.quantile(accuracies, (0.1, 0.9))
    return CurvePoint(
        n_images=int(n_images),
        accuracy=round(float(np.mean(accuracies)), 4),
        low=round(float(low), 4),
        high=round(float(high), 4),
    )


def _images_for(target: float, curves: np.ndarray, n_now: int) -> int | None:
    """Return the median, over the curves, of the images that the target needs."""
    needed = []
    for a, b, c in curves:
        room = (1.0 - target) - c
        reachable = room > 0 and a > 0 and b > 0
        # logarithms, because a flat curve can need more images than a number can hold
        needed.append(math.log(a / room) / b if reachable else math.inf)
    exponent = float(np.median(needed))
    if exponent > math.log(MAX_TIMES * n_now):
        return None
    middle = math.exp(exponent)
    digits = max(0, len(str(int(middle))) - 2)
    return round(middle / 10**digits) * 10**digits
