"""Statistics of measured scores: arrays in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

BOOTSTRAP_ROUNDS = 2_000
MIN_BOOTSTRAP_ROUNDS = 50
MAX_DRAWN_CELLS = 100_000_000
"""Limit on images times outputs times rounds; larger data uses fewer rounds."""


def standard_error(accuracy: float, n_images: int) -> float:
    """Return the binomial standard error of an accuracy measured on ``n_images`` images."""
    # An accuracy of 0 or 1 on few images is uncertain too, so each side gets one more image.
    smoothed = (accuracy * n_images + 1.0) / (n_images + 2.0)
    return math.sqrt(smoothed * (1.0 - smoothed) / max(1, n_images))


def wilson_interval(right: float, total: float, *, z: float = 1.96) -> tuple[float, float]:
    """Return the interval (low, high) of a share, 95 % by default (Wilson 1927).

    Without any observation it is (0, 1).
    """
    if total == 0:
        return 0.0, 1.0
    share = right / total
    scale = 1 + z**2 / total
    centre = (share + z**2 / (2 * total)) / scale
    half = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def newcombe_interval(
    both: int, second_only: int, first_only: int, neither: int, *, z: float = 1.96
) -> tuple[float, float]:
    """Return the interval of the second share minus the first; (-1, 1) for no images.

    Newcombe (1998), Statistics in Medicine 17:2635-2650, method 10: Wilson's intervals of the two
    shares, joined with regard to their correlation. Unlike the textbook interval it holds for few
    images and for shares near 1.
    """
    n = both + second_only + first_only + neither
    if not n:
        return -1.0, 1.0
    totals = (both + second_only, both + first_only)
    shares = [total / n for total in totals]
    (low2, high2), (low1, high1) = (wilson_interval(total, n, z=z) for total in totals)
    margins = math.prod((*totals, n - totals[0], n - totals[1]))
    cross = float(both * neither - second_only * first_only)
    if cross > 0:
        cross = max(cross - n / 2, 0.0)
    phi = cross / math.sqrt(margins) if margins else 0.0

    def joined(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))

    gain = shares[0] - shares[1]
    below = joined(shares[0] - low2, high1 - shares[1])
    above = joined(high2 - shares[0], shares[1] - low1)
    return max(-1.0, gain - below), min(1.0, gain + above)


def are_grouped(groups: np.ndarray | None) -> bool:
    """Return whether any group of int64[N] has two images or more."""
    return groups is not None and len(np.unique(groups)) < len(groups)


def effective_size(right: np.ndarray, groups: np.ndarray | None) -> float:
    """Return the number of independent images that bool[N] in groups int64[N] are worth.

    N divided by the design effect of the share (Kish 1965). If all images or none are right, each
    group counts as one image.
    """
    if groups is None or not are_grouped(groups):
        return float(len(right))
    _, codes = np.unique(groups, return_inverse=True)
    sizes, residuals = np.zeros(codes.max() + 1), np.zeros(codes.max() + 1)
    np.add.at(sizes, codes, 1)
    np.add.at(residuals, codes, right - right.mean())
    count, variance = len(sizes), float(right.mean() * (1 - right.mean()))
    effect = float(np.square(sizes).sum() / len(right))
    if variance and count > 1:
        effect = np.square(residuals).sum() * count / (count - 1) / (len(right) * variance)
    return len(right) / max(1.0, effect)


def bootstrap_interval(
    gain: Callable[[np.ndarray], float],
    strata: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % interval of a gain, measured on images resampled with replacement.

    ``gain`` measures the images of indices int64[N]. ``strata`` int64[N] numbers groups, such
    as classes; each draw has the same number of images of each. The percentile bootstrap (Efron
    and Tibshirani 1993, chapter 13); both models are measured on the same draws. If ``groups``
    int64[N] have several images, whole groups are drawn, whatever their strata.
    """
    if are_grouped(groups):
        counts = draw_counts(groups, len(strata), seed=seed).astype(np.int64)
        return percentile_interval(
            np.array([gain(np.repeat(np.arange(len(strata)), drawn)) for drawn in counts])
        )
    order = np.argsort(strata, kind="stable")
    _, first, count = np.unique(strata[order], return_index=True, return_counts=True)
    start, size = np.repeat(first, count), np.repeat(count, count)
    random = np.random.default_rng(seed)
    gains = [
        gain(order[start + (random.random(len(order)) * size).astype(np.int64)])
        for _ in range(BOOTSTRAP_ROUNDS)
    ]
    low, high = np.quantile(gains, (0.025, 0.975))
    return float(low), float(high)


def draw_counts(
    groups: np.ndarray | None, n_images: int, *, width: int = 1, seed: int = 0
) -> np.ndarray:
    """Return how often each image is in each draw, float32[R,N].

    The cluster bootstrap: whole ``groups`` int64[N] are drawn, since their images are not
    independent (Davison and Hinkley 1997, section 3.8); None: each image is a group. Large data
    uses fewer rounds; ``width`` is the number of values computed per image.
    """
    codes = np.arange(n_images)
    if groups is not None:
        _, codes = np.unique(groups, return_inverse=True)
    count = int(codes.max()) + 1
    rounds = MAX_DRAWN_CELLS // max(1, n_images * width)
    rounds = min(BOOTSTRAP_ROUNDS, max(MIN_BOOTSTRAP_ROUNDS, rounds))
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=rounds)
    counts: np.ndarray = drawn.astype(np.float32)[:, codes]
    return counts


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of values measured on draws, float[R]."""
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


SHARE_FLOOR = 1e-3


def stability_index(shares: np.ndarray, expected: np.ndarray) -> float:
    """Return the population stability index of two shares float[B] that each sum to 1.

    The sum of (p - q) ln(p / q). A rule of thumb from credit scoring (Siddiqi 2006): 0.1 deserves
    a look, and 0.25 calls for new data.
    """
    p, q = np.maximum(shares, SHARE_FLOOR), np.maximum(expected, SHARE_FLOOR)
    return float(((p - q) * np.log(p / q)).sum())


def lead(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return how much lower the mean of losses [N] is than that of ``other``, with its error.

    Both are losses of the same images; the standard error is that of the paired differences.
    """
    differences = other - one
    return float(differences.mean()), float(differences.std() / math.sqrt(len(differences)))
