"""Measures of numbers: arrays in, numbers out. ``values`` and ``decisions`` are [N,K]."""

from __future__ import annotations

import numpy as np

from rootstock.tasks.targets import Targets

HUBER_DELTA = 1.0
"""From this many deviations an error counts linearly, not squared; torch's default."""


def measure_units(values: np.ndarray) -> np.ndarray:
    """Return mean and deviation of values, float64[2,K]; the deviation of equal values is 1."""
    mean, scale = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    return np.stack([mean, np.where(scale > 0, scale, 1.0)])


def units_of(targets: Targets) -> np.ndarray:
    """Return the units of the outputs for these targets."""
    return measure_units(targets.values) if targets.units is None else targets.units


def standardise(targets: Targets, values: np.ndarray | None = None) -> np.ndarray:
    """Return values float32[N,K], by default those of the targets, in the units of outputs."""
    mean, scale = units_of(targets)
    return (((targets.values if values is None else values) - mean) / scale).astype(np.float32)


def huber_losses(outputs: np.ndarray, targets: Targets) -> np.ndarray:
    """Return Huber's loss of each image's standardised errors, float64[N]."""
    errors = np.abs(outputs.astype(np.float64) - standardise(targets))
    near = np.minimum(errors, HUBER_DELTA)
    return np.asarray((near * (errors - 0.5 * near)).mean(axis=1))


def explained_share(decisions: np.ndarray, values: np.ndarray) -> float:
    """Return the explained share of the variance (R squared), the mean over numbers.

    Constant numbers are ignored; 0 if there are no others.
    """
    missed = np.square(decisions.astype(np.float64) - values).sum(axis=0)
    spread = np.square(values - values.mean(axis=0, dtype=np.float64)).sum(axis=0)
    varied = spread > 1e-12
    return float((1 - missed[varied] / spread[varied]).mean()) if varied.any() else 0.0


def rank_correlation(decisions: np.ndarray, values: np.ndarray) -> float:
    """Return Spearman's correlation, the mean over numbers; 0 for constant numbers."""
    return float(np.mean([_spearman(*pair) for pair in zip(decisions.T, values.T, strict=True)]))


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    ranks = [_rank(values) - (len(values) - 1) / 2 for values in (one, other)]
    scale = np.sqrt(np.square(ranks[0]).sum() * np.square(ranks[1]).sum())
    return float(ranks[0] @ ranks[1] / scale) if scale > 0 else 0.0


def _rank(values: np.ndarray) -> np.ndarray:
    """Return ranks float64[N] from 0; equal values share their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[places])
