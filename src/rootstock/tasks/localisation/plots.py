"""Pictures of a localiser's answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from rootstock.data.decode import read_image
from rootstock.errors import ImageError
from rootstock.plots.sheet import THUMB_PIXELS, plot_captioned_tiles
from rootstock.plots.style import BLUE, GREEN, RED, canvas, headline
from rootstock.tasks.localisation.measures import HIT_OVERLAP

BINS = 20
Shares = tuple[float, ...]
"""Left, top, right and bottom in shares of the image's sides."""


class BoxedImage(NamedTuple):
    """An image with the true box and the model's, and both classes."""

    path: str
    actual_box: Shares
    predicted_box: Shares
    actual: str
    predicted: str
    overlap: float


def plot_boxes(images: Sequence[BoxedImage], path: Path, *, root: Path) -> None:
    """Draw whole images, with the true box in green and the model's box in red."""
    items = [
        (
            _draw_tile(root / image.path, image.actual_box, image.predicted_box),
            image.actual,
            f"IoU {image.overlap:.2f}"
            + (f", → {image.predicted}" if image.predicted != image.actual else ""),
        )
        for image in images
    ]
    about = "true box green, model's box red; smallest overlaps first"
    plot_captioned_tiles(items, path, headlines=("Worst boxes", about))


def plot_overlaps(overlaps: np.ndarray, path: Path) -> None:
    """Draw a histogram of the overlaps."""
    with canvas(path, width=6.4, height=3.4) as figure:
        axes = figure.add_subplot()
        axes.hist(overlaps, bins=BINS, range=(0, 1), color=BLUE)
        axes.axvline(HIT_OVERLAP, color=RED, linewidth=1.2)
        axes.set_xlim(0, 1)
        axes.set_xlabel("IoU of the model's box with the true one")
        axes.set_ylabel("test images")
        about = f"mean {overlaps.mean():.3f}; right from {HIT_OVERLAP:g} (red line)"
        headline(axes, "Overlap of the boxes", about)


def _draw_tile(file: Path, actual: Shares, predicted: Shares) -> np.ndarray:
    """Return the whole image in a grey square, uint8[128,128,3], with both boxes."""
    sheet = Image.new("RGB", (THUMB_PIXELS, THUMB_PIXELS), (222, 222, 222))
    try:
        image = Image.fromarray(read_image(file).pixels)
    except (ImageError, OSError):
        return np.asarray(sheet)
    image.thumbnail((THUMB_PIXELS, THUMB_PIXELS))
    left, top = (THUMB_PIXELS - image.width) // 2, (THUMB_PIXELS - image.height) // 2
    sheet.paste(image, (left, top))
    draw = ImageDraw.Draw(sheet)
    for box, colour in ((actual, GREEN), (predicted, RED)):
        x0, x1 = (left + share * (image.width - 1) for share in box[::2])
        y0, y1 = (top + share * (image.height - 1) for share in box[1::2])
        draw.rectangle((x0, y0, x1, y1), outline=colour, width=2)
    return np.asarray(sheet)
