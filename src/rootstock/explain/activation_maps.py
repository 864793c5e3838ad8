"""Class activation maps: where in an image the evidence for an output is (Zhou et al. 2016).

The features of most networks are means of maps over all positions, and the head is linear in
them. So an output is exactly the mean, over the positions, of the head's output at each position:
the map needs no second forward pass and is exact. A head that reads the cells of a grid has weights
for each cell, so its outputs are sums over positions as well. A maximum belongs to the position
that has it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rootstock.backbones.card import split_grid, split_taps


def read_grids(tap: str) -> list[int]:
    """Return the side of the grid on which each part of a tap is read; 0 if its mean is read."""
    return [split_grid(one)[1] for one in split_taps(tap)]


def join_maps(maps: Sequence[np.ndarray], grids: Sequence[int]) -> np.ndarray:
    """Return the features [D] that a head reads from maps [c,h,w]."""
    parts = [
        one.ravel() if grid else one.mean(axis=(1, 2))
        for one, grid in zip(maps, grids, strict=True)
    ]
    return np.concatenate(parts)


def map_evidence(
    maps: Sequence[np.ndarray], weights: np.ndarray, grids: Sequence[int] = ()
) -> np.ndarray:
    """Return float32[h,w]: each position's contribution to an output; their mean is the output.

    Args:
        maps: [c,h,w] of each tap.
        weights: [D], the output's weight for each feature of `join_maps`.
        grids: as from `read_grids`; empty: all features are means.

    Maps of a coarser tap are enlarged to the size of the finest.
    """
    height, width = max(one.shape[1:] for one in maps)
    evidence = np.zeros((height, width), np.float32)
    start = 0
    for one, grid in zip(maps, grids or [0] * len(maps), strict=True):
        size = one.size if grid else len(one)
        chosen, start = weights[start : start + size], start + size
        if grid:
            part = one[0].size * np.einsum("chw,chw->hw", chosen.reshape(one.shape), one)
        else:
            part = np.tensordot(chosen, one, axes=1)
        evidence += _enlarge(part, height, width)
    return evidence


def _enlarge(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Spread the cells of a grid [h,w] over more cells without changing the mean."""
    rows, columns = _overlaps(height, grid.shape[0]), _overlaps(width, grid.shape[1])
    return np.asarray(rows @ grid @ columns.T, np.float32)


def _overlaps(fine: int, coarse: int) -> np.ndarray:
    """Return [fine,coarse]: the share of each fine cell of a side that is in each coarse cell."""
    starts, ends = np.arange(fine)[:, None] / fine, np.arange(1, fine + 1)[:, None] / fine
    first, last = np.arange(coarse) / coarse, np.arange(1, coarse + 1) / coarse
    return fine * np.maximum(0, np.minimum(ends, last) - np.maximum(starts, first))
