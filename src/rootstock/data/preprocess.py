"""Preprocess: turn pixels into network input, in one object for training, export and service.

A difference between training and service is a costly and common fault. So the object is hashed, the
hash is part of every feature's key, and a bundle refuses to load if the hash differs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from rootstock.data.decode import DecodedImage, decode_image
from rootstock.data.limits import DecodeLimits
from rootstock.data.rendering import PLAIN, Rendering
from rootstock.errors import BackboneError
from rootstock.system.digest import digest_json

VERSION = 1
"""Increased whenever the same fields would give different pixels; part of the hash."""

Geometry = Literal["crop", "pad", "squash"]
"""The ways to turn an image that is not square into a square input."""
GEOMETRIES: tuple[Geometry, ...] = get_args(Geometry)
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocess:
    """Brings an image to ``input_size`` and normalises it.

    ``geometry``: `crop` resizes the short side to ``input_size / crop_pct`` and cuts the centre;
    `pad` resizes the long side to ``input_size`` and fills the rest with the mean; `squash` resizes
    both sides to ``input_size``.
    ``mean`` and ``std`` are per channel, for pixels in [0, 1]. Pillow resizes, and always filters
    before it shrinks (antialiasing). ``scaled``: a large JPEG may be decoded at an eighth, a
    quarter or half of its size if that is at least twice the target size. ``rendering`` defines
    how deep greys and transparency become RGB. ``cut_first``: only what `crop` keeps is resized,
    which takes half the time for a photo of 4:3; a few pixels differ by a level.
    """

    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"]
    crop_pct: float
    scaled: bool = False
    rendering: Rendering = PLAIN
    geometry: Geometry = "crop"
    cut_first: bool = False

    def __post_init__(self) -> None:
        if self.interpolation not in _RESAMPLING:
            raise BackboneError(
                f"interpolation {self.interpolation!r} is not one of {', '.join(_RESAMPLING)}"
            )
        if self.geometry not in GEOMETRIES:
            raise BackboneError(f"geometry {self.geometry!r} is not one of {', '.join(GEOMETRIES)}")
        if self.input_size < 1 or not 0 < self.crop_pct <= 1 or min(self.std) <= 0:
            raise BackboneError(
                f"input_size {self.input_size}, crop_pct {self.crop_pct} or std {self.std} "
                "is out of bounds"
            )

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the fields and the version, as 64 hexadecimal digits."""
        return digest_json({"version": VERSION, **self.to_dict()})

    @property
    def decoded_side(self) -> int | None:
        """The smallest shorter side that decoding must keep; None: every pixel."""
        return 2 * self._resized_side if self.scaled else None

    @property
    def _resized_side(self) -> int:
        return (
            round(self.input_size / self.crop_pct) if self.geometry == "crop" else self.input_size
        )

    def decode(self, content: bytes, limits: DecodeLimits | None = None) -> DecodedImage:
        """Decode the bytes of an image file.

        Raises:
            ImageError: with the reasons of `decode_image`.
        """
        side, rendering = self.decoded_side, self.rendering
        return decode_image(content, limits, short_side=side, rendering=rendering)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8[H,W,3] into float32[3,S,S]."""
        return self.normalise(self.fit(pixels)[None])[0]

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """Bring uint8[H,W,3] to uint8[S,S,3] according to `geometry`, not yet normalised."""
        size = self.input_size
        if self.geometry == "crop" and self.cut_first:
            return self._resize_centre(pixels)
        if self.geometry == "crop":
            return _centre_box(self.resize(pixels, self._resized_side), size, size)
        if self.geometry == "squash":
            return self._scale(pixels, size, size)
        scale = size / max(pixels.shape[:2])
        height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
        padded = np.empty((size, size, 3), np.uint8)
        padded[:] = np.round(255 * np.asarray(self.mean))
        _centre_box(padded, height, width)[:] = self._scale(pixels, height, width)
        return padded

    def resize(self, pixels: np.ndarray, short_side: int) -> np.ndarray:
        """Resize uint8[H,W,3] to this short side; keep only the middle of a very long image."""
        height, width = pixels.shape[:2]
        short = min(height, width)
        # Cut first what the centre crop discards: otherwise a very long image would be enlarged to
        # gigabytes. One short side of margin on each side keeps the filter's edge the same.
        if max(height, width) > 3 * short:
            pixels = _centre_box(pixels, min(height, 3 * short), min(width, 3 * short))
            height, width = pixels.shape[:2]
        if short == short_side:
            return pixels
        scale = short_side / short
        return self._scale(
            pixels, max(short_side, round(height * scale)), max(short_side, round(width * scale))
        )

    def _resize_centre(self, pixels: np.ndarray) -> np.ndarray:
        """Return the centre uint8[S,S,3] of a resized image, on the grid of `resize`."""
        size, side = self.input_size, self._resized_side
        short = min(pixels.shape[:2])
        if short == side:
            return _centre_box(pixels, size, size)
        spans = []
        for length in pixels.shape[:2]:
            whole = max(side, round(length * side / short))
            start = (whole - size) // 2
            ends = (start * length / whole, (start + size) * length / whole)
            spans.append((ends[0], min(ends[1], length)))
        (top, bottom), (left, right) = spans
        image, filter_ = Image.fromarray(pixels), _RESAMPLING[self.interpolation]
        return np.asarray(image.resize((size, size), filter_, box=(left, top, right, bottom)))

    def _scale(self, pixels: np.ndarray, height: int, width: int) -> np.ndarray:
        filter_ = _RESAMPLING[self.interpolation]
        return np.asarray(Image.fromarray(pixels).resize((width, height), filter_))

    def normalise(self, images: np.ndarray) -> np.ndarray:
        """Turn uint8[N,S,S,3] into float32[N,3,S,S]."""
        prepared = np.empty((len(images), 3, *images.shape[1:3]), np.float32)
        for channel, levels in enumerate(self.levels):
            np.take(levels, images[..., channel], out=prepared[:, channel])
        return prepared

    @cached_property
    def levels(self) -> np.ndarray:
        """float32[3,256]: the result for each pixel value; a lookup is faster than computing it."""
        mean = np.asarray(self.mean, np.float32)[:, None]
        std = np.asarray(self.std, np.float32)[:, None]
        return (np.arange(256, dtype=np.float32) / np.float32(255.0) - mean) / std

    def with_size(self, input_size: int) -> Preprocess:
        """Return a copy with another input size."""
        return dataclasses.replace(self, input_size=input_size)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        fields = dataclasses.asdict(self)
        if not self.scaled:
            del fields["scaled"]  # models from before this option keep their hash
        if not self.cut_first:
            del fields["cut_first"]  # as above
        if self.geometry == "crop":
            del fields["geometry"]  # as above
        fields["rendering"] = self.rendering.to_dict()
        if not fields["rendering"]:
            del fields["rendering"]  # as above
        return fields | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocess:
        """Return the object from the fields of `to_dict`."""
        exact = {"mean": tuple(fields["mean"]), "std": tuple(fields["std"])}
        rendering = Rendering.from_dict(fields.get("rendering", {}))
        return cls(**(fields | exact | {"rendering": rendering}))


def _centre_box(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    top = (pixels.shape[0] - height) // 2
    left = (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]
