"""Class activation maps: where in an image the evidence for an output is (Zhou et al. 2016).

The features of most networks are means of maps over all positions, and the head is linear in
them. So an output is exactly the mean, over the positions, of what the head makes of each position:
the map costs no second forward pass, and nothing in it is estimated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def map_evidence(maps: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return float32[h,w]: what each position adds to an output; their mean is the whole.

    Args:
        maps: [c,h,w] of each tap, whose means joined are the features.
        weights: [D], of the output for each feature, with D the sum of all c.

    Maps of a coarser tap are repeated to the size of the finest.
    """
    height, width = max(one.shape[1:] for one in maps)
    evidence = np.zeros((height, width), np.float32)
    start = 0
    for one in maps:
        part = np.tensordot(weights[start : start + len(one)], one, axes=1)
        start += len(one)
        evidence += _enlarge(part, height, width)
    return evidence


def contrast(weights: np.ndarray, output: int) -> np.ndarray:
    """Return weights [D] of one of competing outputs, less the mean of all.

    A softmax does not change when every output rises alike: what counts is the difference.
    """
    return weights[output] - weights.mean(axis=0)


def _enlarge(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Repeat the cells of a grid [h,w] so that the mean stays the same."""
    if grid.shape == (height, width):
        return grid
    rows = np.arange(height) * grid.shape[0] // height
    columns = np.arange(width) * grid.shape[1] // width
    return grid[rows[:, None], columns]
