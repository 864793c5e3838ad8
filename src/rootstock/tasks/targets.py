"""Targets: the true values of N images, in the form that a task computes with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Targets:
    """The targets of N images.

    ``values`` [N,...]: class numbers int64[N], numbers float32[N,D], or any other form of the task.
    ``names``: the names of the model's outputs, such as the classes in order.
    ``strata`` int64[N]: images of one stratum are spread evenly over folds and samples.
    ``groups`` int64[N]: images of one group, such as copies, never predict each other; None: each
    image is a group.
    ``units`` float64[2,...]: mean and standard deviation by which outputs are standardised, for
    tasks of numbers.
    """

    values: np.ndarray
    names: tuple[str, ...]
    strata: np.ndarray
    groups: np.ndarray | None = None
    units: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: np.ndarray | Sequence[int]) -> Targets:
        """Return the targets of the given rows."""
        groups = None if self.groups is None else self.groups[rows]
        return Targets(self.values[rows], self.names, self.strata[rows], groups, self.units)

    def joined(self, other: Targets) -> Targets:
        """Return these targets and those of other images; each image is a group."""
        values = np.concatenate([self.values, other.values])
        strata = np.concatenate([self.strata, other.strata])
        return Targets(values, self.names, strata, units=self.units)

    def foldable(self) -> np.ndarray:
        """Return the rows whose stratum can be divided: it has at least two groups.

        The result is empty if this leaves only one of several strata.
        """
        groups = np.arange(len(self)) if self.groups is None else self.groups
        pairs = np.unique(np.stack([self.strata, groups]), axis=1)
        strata, counts = np.unique(pairs[0], return_counts=True)
        several = strata[counts > 1]
        if len(several) < min(2, len(strata)):
            return np.empty(0, np.int64)
        return np.flatnonzero(np.isin(self.strata, several))
