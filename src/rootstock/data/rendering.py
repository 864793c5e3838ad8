"""Rendering: how deep greys, floats and transparency become 8-bit RGB.

A camera of 10 or 12 bits uses a small part of the range of a 16-bit file, and a white icon is
invisible on white. So the range and the ground are chosen once per set, from its training
images, and are stored in the model: a value gives the same grey in training and service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

Range = tuple[float, float]
"""The values that become black and white."""
Tones = tuple[float, ...]
"""The measurements of `measure_tones` for an image; empty for most images."""
SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
WIDE_MODES = ("I", "F")
GROUNDS = (255, 128, 0)
"""Grey levels on which transparent images may be laid, in order of preference."""
MIN_GROUND_CONTRAST = 2.0
"""An image whose thumbnail has a smaller standard deviation in grey levels is invisible."""
MAX_UNSEEN_SHARE = 0.02
"""Share of transparent images that a ground may hide before another ground is tried."""
MIN_SPAN = 16_384
"""16-bit values with at least this range keep 64 or more levels in their upper eight bits."""
_EDGE_PERCENT = 0.1
"""Share of the values beyond the range: dead and hot pixels."""
_EDGE_SHARE = 0.01
"""Share of the images beyond the range: exceptions in their set."""
_SAMPLED_VALUES = 1_000_000
_BAND_PIXELS = 4_000_000
_GDAL_NO_DATA = 42_113
_THUMB_SIZE = (16, 16)


@dataclass(frozen=True)
class Rendering:
    """``ground``: the grey level on which transparent pixels are laid.

    ``deep``: the range of 16-bit greys; None: keep their upper eight bits. ``wide``: the range of
    32-bit integers and floats; None: each image uses its own range.
    """

    ground: int = 255
    deep: Range | None = None
    wide: Range | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that differ from the default, for JSON."""
        plain = vars(Rendering())
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if value != plain[name]
        }

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Rendering:
        """Return the object from the fields of `to_dict`."""
        ranges = {name: (float(low), float(high)) for name, (low, high) in _ranges(tree)}
        return cls(int(tree.get("ground", 255)), **ranges)

    @property
    def ground_name(self) -> str:
        """The colour of the ground, in words."""
        return {255: "white", 128: "grey", 0: "black"}.get(self.ground, f"grey {self.ground}")


PLAIN = Rendering()


def _ranges(tree: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    return ((name, tree[name]) for name in ("deep", "wide") if tree.get(name) is not None)


def to_rgb(image: Image.Image, rendering: Rendering = PLAIN) -> Image.Image:
    """Return an image of any mode as RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image  # convert would copy it
    if image.mode in SIXTEEN_BIT_MODES or image.mode in WIDE_MODES:
        return _to_levels(image, rendering).convert("RGB")
    if is_transparent(image):
        return _by_bands(image, "RGB", lambda band: _on_ground(band, rendering.ground))
    return image.convert("RGB")


def to_grey(image: Image.Image, rendering: Rendering = PLAIN) -> Image.Image:
    """Return `to_rgb` as grey levels, Pillow's mode ``L``."""
    if image.mode == "L" and "transparency" not in image.info:
        return image
    return to_rgb(image, rendering).convert("L")


def is_transparent(image: Image.Image) -> bool:
    """Return whether the image may have transparent pixels."""
    return "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa")


def to_grey_of_its_own(image: Image.Image) -> tuple[Image.Image, Tones]:
    """Return grey levels that show the content of the image, and its `Tones`.

    For comparing it with other images: over its own range, on a ground that shows it.
    """
    if image.mode in SIXTEEN_BIT_MODES or image.mode in WIDE_MODES:
        tones = _measure_range(image)
        return to_grey(image, choose_rendering([(image.mode, tones)])), tones
    grey = to_grey(image)
    if not is_transparent(image):
        return grey, ()
    contrasts = _measure_contrasts(image, grey)
    rendering = choose_rendering([(image.mode, contrasts)])
    return (grey if rendering == PLAIN else to_grey(image, rendering)), contrasts


def choose_rendering(seen: Iterable[tuple[str, Tones]]) -> Rendering:
    """Return the rendering of a whole set, from the modes and tones of its images."""
    deep: list[Tones] = []
    wide: list[Tones] = []
    contrasts: list[Tones] = []
    for mode, tones in seen:
        if tones:
            group = deep if mode in SIXTEEN_BIT_MODES else wide if mode in WIDE_MODES else contrasts
            group.append(tones)
    is_sixteen_bit = all(low >= 0 and high <= 65_535 for low, high in wide)
    wide_range = _joint_range(wide)
    if wide_range and is_sixteen_bit and wide_range[1] - wide_range[0] >= MIN_SPAN:
        wide_range = None
    deep_range = _joint_range(deep)
    if deep_range and deep_range[1] - deep_range[0] >= MIN_SPAN:
        deep_range = None
    return Rendering(_choose_ground(contrasts), deep_range, wide_range)


def shown_share(mode: str, tones: Tones, rendering: Rendering) -> float:
    """Return the part of black to white that an image's own range covers when it is shown."""
    chosen = rendering.deep if mode in SIXTEEN_BIT_MODES else rendering.wide
    span = tones[1] - tones[0]
    if chosen:
        return span / (chosen[1] - chosen[0])
    return span / 65_535 if mode in SIXTEEN_BIT_MODES else 1.0


def _choose_ground(contrasts: list[Tones]) -> int:
    if not contrasts:
        return GROUNDS[0]
    hidden = (np.array(contrasts) < MIN_GROUND_CONTRAST).mean(axis=0)
    if hidden[0] <= MAX_UNSEEN_SHARE:
        return GROUNDS[0]
    return GROUNDS[int(hidden.argmin())]


def _joint_range(ranges: list[Tones]) -> Range | None:
    if not ranges:
        return None
    lows, highs = np.array(ranges).T
    low = float(np.quantile(lows, _EDGE_SHARE, method="lower"))
    high = float(np.quantile(highs, 1 - _EDGE_SHARE, method="higher"))
    return (low, high) if high > low else None


def _measure_range(image: Image.Image) -> Tones:
    """Return the range of nearly all values of an image, without values that mean "no data"."""
    values = np.asarray(image).ravel()
    values = values[:: max(1, values.size // _SAMPLED_VALUES)].astype(np.float64)
    usable = np.isfinite(values)
    if (no_data := _no_data(image)) is not None:
        usable &= values != no_data
    values = _without_outliers(values[usable])
    if not values.size:
        return ()
    low = np.percentile(values, _EDGE_PERCENT, method="lower")
    high = np.percentile(values, 100 - _EDGE_PERCENT, method="higher")
    return float(low), float(high)


def _without_outliers(values: np.ndarray) -> np.ndarray:
    """Return the values without one that is further from all others than they are apart.

    Values such as -9999 mean "no data", and files rarely declare them.
    """
    for end, sign in ((np.min, 1), (np.max, -1)):
        if values.size:
            edge = end(values)
            others = values[values != edge]
            if others.size > 0.01 * values.size:
                gap = sign * (end(others) - edge)
                if gap > np.ptp(others) > 0:
                    values = others
    return values


def _no_data(image: Image.Image) -> float | None:
    try:
        return float(getattr(image, "tag_v2", {})[_GDAL_NO_DATA].strip("\0 "))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _measure_contrasts(image: Image.Image, on_white: Image.Image) -> Tones:
    """Return the standard deviation of the image's thumbnail on each of `GROUNDS`."""
    layer = image if image.mode in ("RGBA", "LA") else image.convert("RGBA")
    alpha = layer.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return ()  # nothing shows through
    thumb, opaque = (
        np.asarray(one.resize(_THUMB_SIZE, Image.Resampling.BOX), np.float64)
        for one in (on_white, alpha)
    )
    clear = 1 - opaque / 255
    return tuple(float((thumb - (255 - ground) * clear).std().round(3)) for ground in GROUNDS)


def _on_ground(image: Image.Image, ground: int) -> Image.Image:
    layer = image.convert("RGBA")
    paper = Image.new("RGBA", layer.size, (ground, ground, ground, 255))
    return Image.alpha_composite(paper, layer).convert("RGB")


def _to_levels(image: Image.Image, rendering: Rendering) -> Image.Image:
    """Return the grey levels of 16 bits, 32 bits or floats."""
    is_deep = image.mode in SIXTEEN_BIT_MODES
    chosen = rendering.deep if is_deep else rendering.wide
    if chosen:
        return _by_values(image, _scaler(*chosen, _no_data(image)))
    if not is_deep:
        extremes = [_extremes(np.asarray(band)) for band in _bands(image)]
        low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
        # Pillow opens 16-bit files as I if it has no better mode.
        if image.mode == "F" or low < 0 or high > 65_535:
            return _by_values(image, lambda values: _stretch(values, low, high))
    return _by_values(image, lambda values: (values >> 8).astype(np.uint8))


def _scaler(low: float, high: float, no_data: float | None) -> Callable[[np.ndarray], np.ndarray]:
    def scale(values: np.ndarray) -> np.ndarray:
        levels = (values - np.float64(low)) * (255 / (high - low))
        np.rint(levels.clip(0, 255, out=levels), out=levels)
        if values.dtype.kind == "f":
            levels[~np.isfinite(values)] = 0
        if no_data is not None:
            levels[values == no_data] = 0
        return levels.astype(np.uint8)

    return scale


def _extremes(values: np.ndarray) -> Range:
    finite = np.where(np.isfinite(values), values, 0)
    return float(finite.min()), float(finite.max())


def _stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    finite = np.where(np.isfinite(values), values, 0.0).astype(np.float64)
    return ((finite - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)


def _by_values(image: Image.Image, render: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    return _by_bands(image, "L", lambda band: Image.fromarray(render(np.asarray(band))))


def _by_bands(
    image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """Convert a large image one band of rows at a time, which needs a fraction of the memory."""
    if image.width * image.height <= _BAND_PIXELS:
        return convert(image)
    whole, top = Image.new(mode, image.size), 0
    for band in _bands(image):
        whole.paste(convert(band), (0, top))
        top += band.height
    return whole


def _bands(image: Image.Image) -> Iterable[Image.Image]:
    if image.width * image.height <= _BAND_PIXELS:
        return [image]
    rows = max(1, _BAND_PIXELS // image.width)
    return (
        image.crop((0, top, image.width, min(top + rows, image.height)))
        for top in range(0, image.height, rows)
    )
