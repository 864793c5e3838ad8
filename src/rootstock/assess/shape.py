"""Which way of making images square is taken; numbers in, a choice out, no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rootstock.assess.profile import GeometryProbe
from rootstock.data.manifest import ImageRow
from rootstock.data.preprocess import Geometry

FAR_FROM_SQUARE = 1.3
"""Median aspect ratio from which ways are compared: below, a crop loses under a quarter of an image
more than of a square one. Not fitted to any set."""
MIN_LEAD_ERRORS = 2.0
"""A way replaces the crop if it leads by this many standard errors: of two ways and several depths
the best leads by one of them by chance. A judgement, fitted to no set; checked on drawn images of
3 : 1 only."""


def median_aspect_ratio(rows: Sequence[ImageRow]) -> float:
    """Return the long side over the short side of the median image."""
    ratios = [max(row.width, row.height) / max(1, min(row.width, row.height)) for row in rows]
    return round(float(np.median(ratios)), 3)


def choose_geometry(probes: Sequence[GeometryProbe]) -> Geometry:
    """Return the way with the lowest loss that leads the crop beyond the noise, or the crop."""
    if not probes:
        return "crop"
    cropped = next(one for one in probes if one.geometry == "crop")
    better = [
        one for one in probes if cropped.log_loss - one.log_loss > MIN_LEAD_ERRORS * one.noise
    ]
    return min(better or [cropped], key=lambda one: one.log_loss).geometry
