"""Predictions for many images: decoded in parallel, inferred in batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from rootstock.data.manifest import ImageRow
from rootstock.features.loading import read_pixels, spread
from rootstock.model.predictor import Inferred, Predictor

BATCH_IMAGES = 32


def predict_rows(predictor: Predictor, rows: list[ImageRow], root: Path) -> Inferred:
    """Return decisions [N,...] and features float32[N,D] of manifest rows.

    Raises:
        DataError: an image has changed or vanished since it was indexed.
    """
    answers, side = [], predictor.bundle.preprocess.decoded_side
    views = spread(lambda row: predictor.cut(read_pixels(row, root, short_side=side)), rows)
    for start in tqdm(
        range(0, len(rows), BATCH_IMAGES), desc="predict", unit="batch", disable=None
    ):
        answers.append(predictor.infer([next(views) for _ in rows[start : start + BATCH_IMAGES]]))
    return Inferred(*(np.concatenate(parts) for parts in zip(*answers, strict=True)))
