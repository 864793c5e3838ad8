"""Colours of classes, the same in masks, on the page and in reports."""

from __future__ import annotations

import colorsys

import numpy as np

_GOLDEN = 0.618034


def colour_of(number: int) -> tuple[int, int, int]:
    """Return red, green and blue of a class; the hues of neighbouring numbers are far apart."""
    saturation, value = ((0.75, 0.95), (0.55, 0.75), (0.95, 0.6))[number % 3]
    parts = colorsys.hsv_to_rgb((0.6 + number * _GOLDEN) % 1, saturation, value)
    red, green, blue = (round(255 * part) for part in parts)
    return red, green, blue


def to_hex(number: int) -> str:
    """Return the colour of a class as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*colour_of(number))


def make_palette(n_classes: int) -> np.ndarray:
    """Return the colours uint8[256,3]; grey for numbers that are not classes."""
    palette = np.full((256, 3), 128, np.uint8)
    palette[:n_classes] = [colour_of(number) for number in range(n_classes)]
    return palette
