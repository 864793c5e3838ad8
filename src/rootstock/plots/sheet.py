"""Contact sheets: many small images in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rootstock.data.decode import read_image
from rootstock.errors import ImageError
from rootstock.plots.style import (
    DPI,
    INK,
    RED,
    canvas,
    display_names,
    fit,
    headline,
    is_drawable,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

THUMB_PIXELS = 128  # pixels; at 144 dpi a little under an inch
GAP_PIXELS = 6
STEP_PIXELS = THUMB_PIXELS + GAP_PIXELS
CAPTION_PIXELS = 46
"""Height below each captioned image, for two lines of text."""
CAPTION_POINTS = 7.0
MAX_CAPTIONED_COLUMNS, MAX_CAPTIONED_ROWS = 6, 4
MAX_CLASSES, MAX_COLUMNS = 24, 8
"""Maximum images on a contact sheet."""
MAX_CACHED_TILES = 256
"""12 MB: several sheets of a run show the same images."""


def plot_contact_sheet(
    samples: Mapping[str, Sequence[str]],
    path: Path,
    *,
    root: Path,
    quarantined: int = 0,
) -> None:
    """Draw one row of images per class (24 classes at most, evenly chosen).

    Args:
        samples: class -> image paths relative to ``root``; the first 8 are shown.
        quarantined: number of quarantined images, for the subtitle.
    """
    names = sorted(samples)
    shown = names
    if len(names) > MAX_CLASSES:
        shown = [names[i] for i in np.linspace(0, len(names) - 1, MAX_CLASSES).astype(int)]
    # As many columns as the longest row needs, so that the right half is not empty.
    columns = max(1, min(MAX_COLUMNS, max((len(samples[name]) for name in shown), default=1)))
    labels = dict(zip(names, display_names(names, limit=26), strict=True))
    tiles = [[_thumbnail(root / item) for item in list(samples[name])[:columns]] for name in shown]
    about = _about(len(names), len(shown), quarantined)
    headlines = ("Sample images", about)
    _draw_rows([labels[name] for name in shown], tiles, columns, path, headlines)


def plot_rows(
    shown: Mapping[str, Sequence[np.ndarray]], path: Path, *, headlines: tuple[str, str]
) -> None:
    """Draw a row of pictures uint8[S,S,3], at 128 pixels, per name."""
    tiles = [[_shrink(one) for one in row] for row in shown.values()]
    _draw_rows(list(shown), tiles, max(map(len, tiles)), path, headlines)


def _draw_rows(
    labels: Sequence[str],
    tiles: Sequence[Sequence[np.ndarray]],
    columns: int,
    path: Path,
    headlines: tuple[str, str],
) -> None:
    step = STEP_PIXELS / DPI
    with canvas(path, width=columns * step + 2.6, height=len(tiles) * step + 0.9) as figure:
        axes = figure.add_subplot()
        _show(axes, tiles, columns, gap_below=0)
        axes.set_yticks([row * STEP_PIXELS + THUMB_PIXELS / 2 for row in range(len(tiles))])
        axes.set_yticklabels(labels)
        headline(axes, *headlines)


def plot_mistakes(
    mistakes: Sequence[tuple[str, str, str, float]],
    path: Path,
    *,
    root: Path,
    n_test: int,
    n_wrong: int,
) -> None:
    """Draw the most confident wrong answers with their true class and the model's answer.

    Args:
        mistakes: (path relative to ``root``, actual class, predicted class, its probability),
            worst first.
    """
    shown = mistakes[: MAX_CAPTIONED_COLUMNS * MAX_CAPTIONED_ROWS]
    items = [
        (name, actual, f"→ {_drawable(predicted)} {probability:.0%}")
        for name, actual, predicted, probability in shown
    ]
    if not items:
        headlines = ("No mistakes", f"All {n_test:,} test images were right.")
    else:
        about = f"{n_wrong:,} of {n_test:,} test images wrong; the {len(shown)} most confident"
        headlines = ("Worst mistakes", about)
    plot_captioned(items, path, root=root, headlines=headlines)


def plot_captioned(
    items: Sequence[tuple[str, str, str]],
    path: Path,
    *,
    root: Path,
    headlines: tuple[str, str],
) -> None:
    """Draw images with two lines of text each: (path relative to ``root``, black, red).

    ``headlines``: title and the grey line below it. Without items, only these are drawn.
    """
    shown = items[: MAX_CAPTIONED_COLUMNS * MAX_CAPTIONED_ROWS]
    tiles = [(_thumbnail(root / name), black, red) for name, black, red in shown]
    plot_captioned_tiles(tiles, path, headlines=headlines)


def plot_captioned_tiles(
    items: Sequence[tuple[np.ndarray, str, str]], path: Path, *, headlines: tuple[str, str]
) -> None:
    """Draw pictures with two lines of text each: (uint8[S,S,3], black, red); see `plot_captioned`.

    At most 24 are drawn, at 128 pixels.
    """
    items = items[: MAX_CAPTIONED_COLUMNS * MAX_CAPTIONED_ROWS]
    if not items:
        with canvas(path, width=5, height=1.6) as figure:
            axes = figure.add_subplot()
            axes.axis("off")
            headline(axes, *headlines)
        return
    columns = max(3, min(MAX_CAPTIONED_COLUMNS, len(items)))
    rows = [items[start : start + columns] for start in range(0, len(items), columns)]
    tiles = [[_shrink(item[0]) for item in row] for row in rows]
    width = columns * STEP_PIXELS / DPI * 1.12 + 0.3
    height = len(rows) * (STEP_PIXELS + CAPTION_PIXELS) / DPI * 1.12 + 0.9
    with canvas(path, width=width, height=height) as figure:
        axes = figure.add_subplot()
        _show(axes, tiles, columns, gap_below=CAPTION_PIXELS)
        for y, row in enumerate(rows):
            for x, (_, black, red) in enumerate(row):
                left, bottom = (
                    x * STEP_PIXELS,
                    y * (STEP_PIXELS + CAPTION_PIXELS) + THUMB_PIXELS,
                )
                _caption(axes, _drawable(black), red, left, bottom)
        axes.set_yticks([])
        headline(axes, *headlines)


def _drawable(text: str) -> str:
    return text if is_drawable(text) else "(see the table)"


def _thumbnail(path: Path) -> np.ndarray:
    """Return a square centre crop, uint8[128,128,3]; plain grey if it cannot be read."""
    try:
        state = path.stat()
        return _read_tile(path, (state.st_size, state.st_mtime_ns))
    except (ImageError, OSError):
        return np.full((THUMB_PIXELS, THUMB_PIXELS, 3), 222, np.uint8)


@lru_cache(MAX_CACHED_TILES)
def _read_tile(path: Path, _state: tuple[int, int]) -> np.ndarray:
    """Return `_thumbnail` of a file; ``_state`` changes when the file is rewritten."""
    return _shrink(read_image(path).pixels)


def _shrink(pixels: np.ndarray) -> np.ndarray:
    """Return the centre square of uint8[H,W,3] as uint8[128,128,3]."""
    height, width = pixels.shape[:2]
    if (height, width) == (THUMB_PIXELS, THUMB_PIXELS):
        return pixels
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    crop = Image.fromarray(pixels[top : top + side, left : left + side])
    # Small images keep their pixels, so that people see that they are small.
    filter_ = Image.Resampling.NEAREST if side < THUMB_PIXELS // 2 else Image.Resampling.LANCZOS
    return np.asarray(crop.resize((THUMB_PIXELS, THUMB_PIXELS), filter_))


def _show(
    axes: Axes, tiles: Sequence[Sequence[np.ndarray]], columns: int, *, gap_below: int
) -> None:
    row_height = STEP_PIXELS + gap_below
    sheet = np.full(
        (
            len(tiles) * row_height - GAP_PIXELS,
            columns * STEP_PIXELS - GAP_PIXELS,
            3,
        ),
        255,
        "uint8",
    )
    for y, row in enumerate(tiles):
        for x, tile in enumerate(row):
            top, left = y * row_height, x * STEP_PIXELS
            sheet[top : top + THUMB_PIXELS, left : left + THUMB_PIXELS] = tile
    axes.imshow(sheet, interpolation="antialiased")
    axes.set_xticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _caption(axes: Axes, black: str, red: str, left: float, bottom: float) -> None:
    style: dict[str, Any] = {"fontsize": CAPTION_POINTS, "va": "top", "ha": "left"}
    for text, colour, drop in ((black, INK, 4), (red, RED, 22)):
        fitting = fit(text, axes, points=CAPTION_POINTS, pixels=THUMB_PIXELS)
        axes.text(left, bottom + drop, fitting, color=colour, **style)


def _about(classes: int, shown: int, quarantined: int) -> str:
    parts = [f"{classes} classes" if shown == classes else f"{shown} of {classes} classes"]
    if quarantined:
        parts.append(f"{quarantined:,} images quarantined, not shown")
    return "; ".join(parts)
