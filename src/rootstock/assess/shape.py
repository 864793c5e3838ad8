"""Choose how images become square, from measurements; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rootstock.assess.profile import GeometryProbe
from rootstock.data.manifest import ImageRow
from rootstock.data.preprocess import Geometry

FAR_FROM_SQUARE = 1.3
"""From this median aspect ratio the ways are compared. Below it, a crop loses less than a quarter
of an image more than it loses of a square one. Not fitted to any set."""
MIN_LEAD_ERRORS = 2.0
"""A way replaces the crop if it leads by this many standard errors: the best of two ways at several
depths leads by one standard error by chance. A judgement, not fitted to any set; checked only on
drawn images of 3 : 1."""


def median_aspect_ratio(rows: Sequence[ImageRow]) -> float:
    """Return the ratio of the sides, long to short, of the median image."""
    ratios = [max(row.width, row.height) / max(1, min(row.width, row.height)) for row in rows]
    return round(float(np.median(ratios)), 3)


def choose_geometry(probes: Sequence[GeometryProbe]) -> Geometry:
    """Return the way with the lowest loss if it beats the crop beyond the noise, or the crop."""
    if not probes:
        return "crop"
    cropped = next(one for one in probes if one.geometry == "crop")
    better = [
        one for one in probes if cropped.log_loss - one.log_loss > MIN_LEAD_ERRORS * one.noise
    ]
    return min(better or [cropped], key=lambda one: one.log_loss).geometry
