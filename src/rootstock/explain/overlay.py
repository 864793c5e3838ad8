"""Draw a heat map over the image that it explains."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from rootstock.explain.heat_map import HeatMap

COLOUR = (255, 96, 0)
"""Tint of the strongest evidence: an orange that colour-blind readers can distinguish."""
MAX_COVER, DIMMED, GREYED = 0.7, 0.5, 0.8
"""Opacity of the strongest evidence; brightness of pixels without evidence; and the share of
colour that the view loses so that the tint is visible."""


def draw_overlay(heat_map: HeatMap, *, strength: float = 1.0) -> np.ndarray:
    """Return uint8[S,S,3]: the view in grey, tinted by evidence and dimmed without it.

    ``strength`` 0 leaves the view unchanged.
    """
    view, grid = heat_map.view, Image.fromarray(heat_map.grid)
    side = len(view)
    share = np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255
    share = share[..., None]
    grey = view.mean(axis=2, keepdims=True)
    base = view + strength * GREYED * (grey - view)
    dimmed = base * (1 - strength * (1 - DIMMED) * (1 - share))
    cover = strength * MAX_COVER * share
    return np.round(dimmed * (1 - cover) + np.array(COLOUR) * cover).astype(np.uint8)


def encode_png(pixels: np.ndarray) -> bytes:
    """Return uint8[H,W,3] as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
