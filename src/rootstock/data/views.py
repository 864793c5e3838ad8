"""Views: several inputs from one image, whose logits are averaged (test-time augmentation).

Averaging over crops and mirror images dates from Krizhevsky et al. 2012; it costs one forward
pass per view.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from rootstock.data.preprocess import Preprocess

Views = Literal["one", "flip", "crops"]
FORWARD_PASSES: Mapping[Views, int] = MappingProxyType({"one": 1, "flip": 2, "crops": 5})
"""Forward passes per prediction."""
MIN_CROP_RATIO = 1.15
"""Crops are cut from an image at least this much larger, so that they differ."""


def cut_views(preprocess: Preprocess, pixels: np.ndarray, views: Views) -> np.ndarray:
    """Return the views uint8[V,S,S,3] of an image uint8[H,W,3], not yet normalised.

    ``flip``: the image and its mirror image; ``crops``: the centre and the four corners.
    """
    centre = preprocess.fit(pixels)
    if views == "one":
        return centre[None]
    if views == "flip":
        return np.stack([centre, centre[:, ::-1]])
    size = preprocess.input_size
    least = round(size * MIN_CROP_RATIO)
    larger = (
        preprocess.resize(pixels, max(round(size / preprocess.crop_pct), least))
        if preprocess.geometry == "crop"
        else preprocess.with_size(least).fit(pixels)
    )
    height, width = larger.shape[:2]
    corners = [
        larger[top : top + size, left : left + size]
        for top in (0, height - size)
        for left in (0, width - size)
    ]
    return np.stack([centre, *corners])


def average_views(rows: np.ndarray, views: Views) -> np.ndarray:
    """Return the mean [N,K] over the views float[N*V,K]."""
    return rows.reshape(-1, FORWARD_PASSES[views], rows.shape[1]).mean(axis=1)
