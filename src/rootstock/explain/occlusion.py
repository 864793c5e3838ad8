"""Occlusion: hide one part of an image after another, and measure the effect (Zeiler 2014).

This works for every network and engine, and takes one forward pass per part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rootstock.explain.subject import contrast
from rootstock.model.predictor import Predictor
from rootstock.tasks.task import Subject

CELLS = 8
"""Grid cells per direction."""
PATCH_CELLS = 2
"""Side of the hidden square in cells. Neighbouring squares overlap, so the map is smooth."""
BATCH_IMAGES = 16


def occlude(
    predictor: Predictor, view: np.ndarray, subjects: Sequence[Subject]
) -> list[np.ndarray]:
    """Return float32[8,8] per subject: its drop if squares around a cell are hidden.

    A hidden square of the view uint8[S,S,3] gets the mean colour of the view. For a subject with
    several outputs, such as a box, the value is how far they move together.
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
    outputs = _run(predictor, np.concatenate([view[None], hidden])).T
    evidence = []
    for subject in subjects:
        values = contrast(outputs, subject)
        falls = values[:, :1] - values[:, 1:]
        fall = falls[0] if len(falls) == 1 else np.linalg.norm(falls, axis=0)
        evidence.append(fall.reshape(CELLS, CELLS).astype(np.float32))
    return evidence


def _run(predictor: Predictor, views: np.ndarray) -> np.ndarray:
    """Return outputs float32[N,K], before calibration, of views uint8[N,S,S,3]."""
    parts = []
    for start in range(0, len(views), BATCH_IMAGES):
        images = predictor.bundle.preprocess.normalise(views[start : start + BATCH_IMAGES])
        parts.append(predictor.outputs(images))
    return np.concatenate(parts)
