"""Pictures of a segmenter's answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from rootstock.data.decode import read_image
from rootstock.errors import ImageError
from rootstock.plots.sheet import THUMB_PIXELS, plot_captioned_tiles
from rootstock.plots.style import BLUE, INK, canvas, display_names, headline
from rootstock.tasks.segmentation.colours import make_palette
from rootstock.tasks.segmentation.masks import IGNORED

MASK_WEIGHT = 0.55
"""How strongly the colour of a class covers the image."""
LEGEND_ROWS = 10
LINE_PIXELS = 12


class OverlaidImage(NamedTuple):
    """An image with the true classes uint8[P,P] and the model's; ``right`` is a share of points."""

    path: str
    actual: np.ndarray
    predicted: np.ndarray
    right: float


def plot_overlays(
    images: Sequence[OverlaidImage], names: Sequence[str], path: Path, *, root: Path
) -> None:
    """Draw whole images, each with the true classes and with the model's classes."""
    palette = make_palette(len(names))
    items = []
    for image in images:
        pixels = _read_square(root / image.path)
        items += [
            (_cover(pixels, image.actual, palette), "true classes", ""),
            (_cover(pixels, image.predicted, palette), "the model's", f"{image.right:.1%} right"),
        ]
    items += [(tile, "classes", "") for tile in _draw_legend(names, palette)]
    about = "fewest right points first; grey is ignored"
    plot_captioned_tiles(items, path, headlines=("Worst images", about))


def plot_class_overlaps(rows: Sequence[Sequence[object]], path: Path) -> None:
    """Draw the IoU of each class with its interval, the rows of per_class.csv."""
    known = [row for row in rows if isinstance(row[1], float)]
    names = display_names([str(row[0]) for row in known])
    values, low, high = (
        np.array([float(str(row[column])) for row in known]) for column in (1, 2, 3)
    )
    with canvas(path, width=6.4, height=1.4 + 0.24 * len(known)) as figure:
        axes = figure.add_subplot()
        places = np.arange(len(known))
        axes.barh(places, values, color=BLUE, height=0.6)
        axes.hlines(places, low, high, color=INK, linewidth=1.4)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("IoU")
        headline(axes, "Overlap of each class", "line: 95 % interval, bootstrap over images")


def _read_square(file: Path) -> np.ndarray:
    """Return a whole image resized to a square, uint8[128,128,3]."""
    try:
        image = Image.fromarray(read_image(file).pixels)
    except (ImageError, OSError):
        return np.full((THUMB_PIXELS, THUMB_PIXELS, 3), 222, np.uint8)
    return np.asarray(image.resize((THUMB_PIXELS, THUMB_PIXELS)))


def _cover(pixels: np.ndarray, classes: np.ndarray, palette: np.ndarray) -> np.ndarray:
    side = np.arange(THUMB_PIXELS) * len(classes) // THUMB_PIXELS
    shown = classes[np.ix_(side, side)]
    weight = np.where(shown == IGNORED, MASK_WEIGHT + 0.3, MASK_WEIGHT)[..., None]
    return np.asarray(pixels * (1 - weight) + palette[shown] * weight, np.uint8)


def _draw_legend(names: Sequence[str], palette: np.ndarray) -> list[np.ndarray]:
    """Return tiles with the colour of each class; at most two."""
    tiles = []
    for start in range(0, min(len(names), 2 * LEGEND_ROWS), LEGEND_ROWS):
        tile = Image.new("RGB", (THUMB_PIXELS, THUMB_PIXELS), (255, 255, 255))
        draw = ImageDraw.Draw(tile)
        for row, number in enumerate(range(start, min(start + LEGEND_ROWS, len(names)))):
            top = 2 + LINE_PIXELS * row
            draw.rectangle((2, top, 12, top + 9), fill=tuple(palette[number].tolist()))
            text = names[number][:18].encode("latin-1", "replace").decode("latin-1")
            draw.text((17, top - 1), text, fill=(31, 45, 58))
        tiles.append(np.asarray(tile))
    return tiles
