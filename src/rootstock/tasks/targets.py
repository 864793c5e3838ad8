"""Targets: what N images should get, in the form that a task computes with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Targets:
    """The targets of N images.

    ``values`` [N,...]: class numbers int64[N], numbers float32[N,D], or what else the task reads.
    ``names``: what the model's outputs are called, such as the classes in their order.
    ``strata`` int64[N]: images of one stratum are spread evenly over folds and samples.
    """

    values: np.ndarray
    names: tuple[str, ...]
    strata: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: np.ndarray | Sequence[int]) -> Targets:
        """Return the targets of some rows."""
        return Targets(self.values[rows], self.names, self.strata[rows])
