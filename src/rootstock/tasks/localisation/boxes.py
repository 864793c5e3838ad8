"""Boxes as texts, and as numbers: left, top, right, bottom as shares of the image's sides."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rootstock.errors import DataError
from rootstock.tasks.single_label.labels import require_label

SIDES = ("x", "y", "width", "height")
MIN_SHARE = 1e-6
"""Keeps the ratio of two areas finite."""


class Labelled(NamedTuple):
    """The class of an image and its box in pixels: upper left corner, width and height."""

    label: str
    box: tuple[float, float, float, float]


def read_text(text: str) -> Labelled:
    """Read the JSON list of a class and four numbers in pixels.

    Raises:
        DataError: a number is missing, not finite, or the box has no area.
    """
    label, *cells = json.loads(text)[:5]
    numbers = []
    for side, cell in zip(SIDES, cells, strict=True):
        try:
            number = float(cell)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise DataError(
                f"{side} of a box is {cell!r}, which is not a number",
                hint="write x, y, width and height in pixels of the upright image",
            )
        numbers.append(number)
    x, y, width, height = numbers
    if width <= 0 or height <= 0:
        raise DataError(
            f"a box of {label!r} is {width:g} x {height:g} pixels: it has no area",
            hint="write its width and height in pixels, or remove the row",
        )
    return Labelled(label, (x, y, width, height))


def place_text(text: str, size: tuple[int, int]) -> tuple[str, float]:
    """Return the text with the box as shares of an image of this width and height.

    The part outside the image is cut off; the number is the share of the box that was cut off.
    """
    label, (x, y, width, height) = read_text(text)
    left, right = (min(max(edge / size[0], 0.0), 1.0) for edge in (x, x + width))
    top, bottom = (min(max(edge / size[1], 0.0), 1.0) for edge in (y, y + height))
    inside = (right - left) * size[0] * (bottom - top) * size[1] / (width * height)
    shares = [round(share, 6) for share in (left, top, right, bottom)]
    return json.dumps([label, *shares], ensure_ascii=False), 1.0 - inside


def correct_text(text: str) -> str:
    """Return the text of a class and a box that a person gave, in shares.

    Raises:
        DataError: the text is invalid, or the box has no area within the image.
    """
    try:
        label, *cells = json.loads(text)
        left, top, right, bottom = (min(max(float(cell), 0.0), 1.0) for cell in cells)
        good = isinstance(label, str) and left < right and top < bottom
    except (RecursionError, TypeError, ValueError):
        good = False
    if not good:
        raise DataError(
            f"{text!r} is not a class and a box",
            hint='write ["cat", left, top, right, bottom], with shares of the sides from 0 to 1',
        )
    shares = [round(share, 6) for share in (left, top, right, bottom)]
    return json.dumps([require_label(label), *shares], ensure_ascii=False)


def read_label(text: str) -> str:
    """Return the class of a text, with the box in pixels or in shares."""
    return str(json.loads(text)[0])


def read_shares(texts: Sequence[str]) -> np.ndarray:
    """Return the boxes float32[N,4] of texts that `place_text` wrote."""
    return np.array([json.loads(text)[1:] for text in texts], np.float32).reshape(-1, 4)


def tidy(boxes: np.ndarray) -> np.ndarray:
    """Return boxes [N,4] within the image, left before right and top before bottom."""
    inside = np.clip(boxes, 0.0, 1.0)
    lower = np.minimum(inside[:, :2], inside[:, 2:])
    return np.concatenate([lower, np.maximum(inside[:, :2], inside[:, 2:])], axis=1)


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the intersection over union float64[N] of boxes [N,4]."""
    shared, joined = _areas(one, other)
    return shared / np.maximum(joined, MIN_SHARE)


def generalised_overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return GIoU float64[N], from -1 to 1, of boxes [N,4] (Rezatofighi et al. 2019)."""
    shared, joined = _areas(one, other)
    hull = _area(np.minimum(one[:, :2], other[:, :2]), np.maximum(one[:, 2:], other[:, 2:]))
    return shared / np.maximum(joined, MIN_SHARE) - (hull - joined) / np.maximum(hull, MIN_SHARE)


def _areas(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shared = _area(np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:]))
    each = [_area(boxes[:, :2], boxes[:, 2:]) for boxes in (one, other)]
    return shared, each[0] + each[1] - shared


def _area(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    return np.clip(upper.astype(np.float64) - lower, 0.0, None).prod(axis=1)
