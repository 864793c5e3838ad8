"""Occlusion: hide one part of an image after the other, and see what it costs (Zeiler 2014).

Works for every network and engine, at the price of one forward pass per part.
"""

from __future__ import annotations

import numpy as np

from rootstock.model.predictor import Predictor

CELLS = 8
"""Cells of the grid in each direction."""
PATCH_CELLS = 2
"""Side of the hidden square in cells: neighbouring squares overlap, so the map is smooth."""
BATCH_IMAGES = 16


def occlude(predictor: Predictor, view: np.ndarray, output: int) -> np.ndarray:
    """Return float32[8,8]: by how much the output falls if squares around a cell are hidden.

    A hidden square of the view uint8[S,S,3] gets the mean colour of the view. Where outputs
    compete, an output counts by its distance to the mean of all.
    """
    size = len(view)
    edges = np.linspace(0, size, CELLS + 1).round().astype(int)
    colour = view.mean(axis=(0, 1)).astype(np.uint8)
    margin = (PATCH_CELLS - 1) * size // CELLS // 2
    hidden = np.repeat(view[None], CELLS * CELLS, axis=0)
    for number in range(CELLS * CELLS):
        row, column = divmod(number, CELLS)
        rows = slice(max(0, edges[row] - margin), edges[row + 1] + margin)
        columns = slice(max(0, edges[column] - margin), edges[column + 1] + margin)
        hidden[number, rows, columns] = colour
    scores = measure_output(predictor, np.concatenate([view[None], hidden]), output)
    return (scores[0] - scores[1:]).reshape(CELLS, CELLS).astype(np.float32)


def measure_output(predictor: Predictor, views: np.ndarray, output: int) -> np.ndarray:
    """Return float32[N] of one output, before the calibration, of views uint8[N,S,S,3]."""
    parts = []
    for start in range(0, len(views), BATCH_IMAGES):
        images = predictor.bundle.preprocess.normalise(views[start : start + BATCH_IMAGES])
        parts.append(predictor.outputs(images))
    outputs = np.concatenate(parts)
    if predictor.task.competing:
        outputs = outputs - outputs.mean(axis=1, keepdims=True)
    return outputs[:, output]
