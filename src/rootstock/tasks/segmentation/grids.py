"""Outputs on a grid of positions, and their meaning for an image of any size.

Interpolates like `heads.maps`, which needs torch; a service does not have torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from rootstock.tasks.segmentation.masks import POINTS

GRID = 40
"""Positions along each side that have outputs; between them outputs are interpolated."""
COMPUTED_SIDE = 512
"""Classes are computed for at most this many pixels along a side, and then enlarged."""
BLOCK_IMAGES = 16
Size = tuple[int, int]


@lru_cache(64)
def weigh_cells(target: int) -> np.ndarray:
    """Return float32[target,GRID]: weights of the linear interpolation of cells along a side."""
    centres = np.clip((np.arange(target) + 0.5) * GRID / target - 0.5, 0, GRID - 1)
    distance = np.abs(centres[:, None] - np.arange(GRID))
    return np.maximum(1 - distance, 0).astype(np.float32)


def as_grids(outputs: np.ndarray) -> np.ndarray:
    """Return outputs [N,K*G*G] as [N,K,G,G]."""
    return outputs.reshape(len(outputs), -1, GRID, GRID)


def log_probabilities(outputs: np.ndarray, temperature: float) -> np.ndarray:
    """Return log-probabilities float32[N,K,G,G] of outputs [N,K*G*G]."""
    scaled = as_grids(outputs).astype(np.float32) / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    normalised: np.ndarray = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return normalised


def on_points(grids: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield blocks of images, and their grids [N,K,G,G] interpolated to float32[n,K,P,P]."""
    weights = weigh_cells(POINTS)
    for start in range(0, len(grids), BLOCK_IMAGES):
        block = slice(start, start + BLOCK_IMAGES)
        yield block, weights @ grids[block].astype(np.float32) @ weights.T


def classes_on_points(grids: np.ndarray) -> np.ndarray:
    """Return the most probable class of each point, uint8[N,P,P]."""
    classes = np.empty((len(grids), POINTS, POINTS), np.uint8)
    for block, interpolated in on_points(grids):
        classes[block] = interpolated.argmax(axis=1)
    return classes


def classes_of_size(grid: np.ndarray, size: Size) -> np.ndarray:
    """Return the most probable class uint8[H,W] of each pixel of an image of ``size`` (W, H).

    ``grid`` is [K,G,G]. A large image is computed on fewer pixels, whose classes are repeated.
    """
    scale = min(1.0, COMPUTED_SIDE / max(size))
    width, height = (max(1, round(side * scale)) for side in size)
    interpolated = weigh_cells(height) @ grid.astype(np.float32) @ weigh_cells(width).T
    classes = interpolated.argmax(axis=0).astype(np.uint8)
    if (width, height) == size:
        return classes
    rows, columns = (
        np.arange(full) * part // full
        for full, part in zip(size[::-1], (height, width), strict=True)
    )
    return classes[np.ix_(rows, columns)]
