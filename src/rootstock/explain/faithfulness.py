"""Faithfulness: does a heat map show what the model's answer depends on?

Deletion and insertion (Petsiuk et al. 2018): parts of an image are hidden, or shown, in the order
of the map. If the map is right, the probability falls, or rises, faster than in a random order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from rootstock.explain.heat_map import HeatMap
from rootstock.model.predictor import Predictor

CELLS = 14
"""Grid cells per direction that are hidden or shown one after another."""
STEPS = 8
BLUR_SHARE = 0.1
"""Radius of the blur of hidden parts, as a share of the side."""


@dataclass(frozen=True)
class Faithfulness:
    """Mean areas under the curves of N images, for the maps and for ``random`` orders."""

    n_images: int
    deletion: float
    insertion: float
    random_deletion: float
    random_insertion: float

    def metrics(self) -> dict[str, float]:
        """Return the numbers for reports."""
        return {
            "explanation_deletion": self.deletion,
            "explanation_deletion_random": self.random_deletion,
            "explanation_insertion": self.insertion,
            "explanation_insertion_random": self.random_insertion,
        }


def measure_faithfulness(
    predictor: Predictor, heat_maps: Sequence[HeatMap], *, seed: int = 0
) -> Faithfulness:
    """Compare maps with random orders of the same cells.

    The curve shows the probability of the output, so the task must have probabilities.
    """
    chance = np.random.default_rng(seed)
    areas = []
    for heat_map in heat_maps:
        output = predictor.names.index(heat_map.output)
        ranked = np.argsort(-_cells(heat_map), kind="stable")
        shuffled = chance.permutation(CELLS * CELLS)
        areas.append([area for order in (ranked, shuffled)
                      for area in _areas(predictor, heat_map.view, order, output)])  # fmt: skip
    deletion, insertion, random_deletion, random_insertion = np.mean(areas, axis=0).tolist()
    return Faithfulness(len(areas), deletion, insertion, random_deletion, random_insertion)


def _cells(heat_map: HeatMap) -> np.ndarray:
    """Return the evidence [196] of each cell."""
    grid = Image.fromarray(heat_map.evidence.astype(np.float32))
    return np.asarray(grid.resize((CELLS, CELLS), Image.Resampling.BILINEAR)).ravel()


def _areas(
    predictor: Predictor, view: np.ndarray, order: np.ndarray, output: int
) -> tuple[float, float]:
    """Return the areas under the curves of deletion and insertion."""
    side = len(view)
    radius = BLUR_SHARE * side
    blurred = np.asarray(Image.fromarray(view).filter(ImageFilter.GaussianBlur(radius)))
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    cell = np.arange(side) * CELLS // side
    ranks = rank.reshape(CELLS, CELLS)[cell[:, None], cell]
    bounds = np.linspace(0, len(order), STEPS + 1)
    first = [ranks[..., None] < bound for bound in bounds]
    images = [np.where(part, blurred, view) for part in first]
    images += [np.where(part, view, blurred) for part in first]
    normalised = predictor.bundle.preprocess.normalise(np.stack(images))
    decisions = predictor.infer_normalised(normalised, "one").decisions
    confidences = predictor.task.confidences(decisions)
    assert confidences is not None
    scores = confidences[:, output].astype(float)
    deletion, insertion = scores[: STEPS + 1], scores[STEPS + 1 :]
    return float(np.trapezoid(deletion) / STEPS), float(np.trapezoid(insertion) / STEPS)
