"""Predict many images, with parallel decoding and batched inference."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rootstock.data.manifest import ImageRow
from rootstock.features.loading import read_pixels
from rootstock.model.predictor import Inferred, Predictor
from rootstock.system.progress import Progress
from rootstock.system.threads import spread

BATCH_IMAGES = 32


def predict_rows(predictor: Predictor, rows: list[ImageRow], root: Path) -> Inferred:
    """Return decisions [N,...] and features float32[N,D] of manifest rows.

    Raises:
        DataError: an image has changed or disappeared since it was indexed.
    """
    answers, preprocess = [], predictor.bundle.preprocess
    side, rendering = preprocess.decoded_side, preprocess.rendering

    def cut(row: ImageRow) -> np.ndarray:
        return predictor.cut(read_pixels(row, root, short_side=side, rendering=rendering))

    views = spread(cut, rows)
    with Progress("predict", len(rows), "image") as progress:
        for start in range(0, len(rows), BATCH_IMAGES):
            batch = [next(views) for _ in rows[start : start + BATCH_IMAGES]]
            answers.append(predictor.infer(batch))
            progress.update(len(batch))
    return Inferred(*(np.concatenate(parts) for parts in zip(*answers, strict=True)))
