"""Coarse similarity: an upper bound of the cosine with every row, from one byte per number.

The speed of a search over all rows is limited by memory bandwidth. One byte instead of four is read
four times as fast, and because the rounding error is known, rows that cannot be among the nearest
are known too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from rootstock.runtimes.onnx import product_session

ROW_LEVELS, QUERY_LEVELS = 127, 63
"""Largest codes. With 7 bits for a query, a sum of two products fits in 16 bits everywhere."""
SLACK = 1e-5
"""Upper bound of the float32 rounding error in a product of unit rows."""
_BLOCK_ROWS = 8_192
_NAMES = ("codes", "mean", "facts")


@dataclass(frozen=True)
class CoarseRows:
    """N rows of unit length, each the ``mean`` plus its scale times its codes plus an error.

    ``codes`` int8[D,N]; ``mean`` float32[D]; ``facts`` float64[4,N]: the scale, the scale times the
    sum of the codes, the length of scale times codes, and mean times (scale times codes) plus the
    length of the error.
    """

    codes: np.ndarray
    mean: np.ndarray
    facts: np.ndarray

    @classmethod
    def make(cls, rows: np.ndarray) -> CoarseRows:
        """Round rows float16[N,D] of unit length."""
        count, width = rows.shape
        mean = np.asarray(np.mean(rows, axis=0, dtype=np.float64), np.float32)
        codes, facts = np.empty((width, count), np.int8), np.empty((4, count))
        for start in range(0, count, _BLOCK_ROWS):
            part = slice(start, start + _BLOCK_ROWS)
            centred = rows[part].astype(np.float32) - mean
            scale = np.maximum(np.abs(centred).max(axis=1), 1e-12) / ROW_LEVELS
            rounded = np.round(centred / scale[:, None])
            error = np.linalg.norm(centred - scale[:, None] * rounded, axis=1)
            codes[:, part] = rounded.T
            length = np.linalg.norm(rounded, axis=1)
            along = scale * (rounded @ mean) + error
            facts[:, part] = scale, scale * rounded.sum(axis=1), scale * length, along
        return cls(codes, mean, facts)

    def bounds(self, query: np.ndarray) -> np.ndarray:
        """Return float64[N]: upper bounds of the cosines with a unit ``query`` float32[D]."""
        scale, sums, lengths, along = self.facts
        centred = query - self.mean
        step = max(float(np.abs(centred).max()), 1e-12) / QUERY_LEVELS
        rounded = np.round(centred / step)
        error = float(np.linalg.norm(centred - step * rounded))
        # The product takes unsigned codes; the effect of the shift is subtracted again.
        shift = QUERY_LEVELS + 1
        shifted = (rounded + shift).astype(np.uint8)
        (products,) = self._product.run(None, {"A": shifted[None], "B": self.codes})
        bound = (step * scale) * products[0] - (shift * step) * sums
        return bound + along + error * lengths + (float(query @ self.mean) + SLACK)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that an index stores."""
        return {name: getattr(self, name) for name in _NAMES}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self | None:
        """Return the inverse of `arrays`; None if there are no arrays.

        Raises:
            KeyError: A part is missing.
        """
        return cls(*(arrays[name] for name in _NAMES)) if "codes" in arrays else None

    @cached_property
    def _product(self) -> Any:
        return product_session()
