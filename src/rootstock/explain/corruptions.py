"""Common corruptions of images at five severities (after Hendrycks and Dietterich 2019).

This project chose the strengths so that severity 3 looks like a bad camera. Each corruption is a
pure function of pixels uint8[H,W,3]: images of one size get the same noise.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageFilter

SEVERITIES = (1, 2, 3, 4, 5)

NOISE = (0.04, 0.08, 0.12, 0.18, 0.26)
"""Standard deviation of the noise, as a share of a pixel's range."""
BLUR = (0.006, 0.012, 0.018, 0.027, 0.04)
"""Radius of the blur, as a share of the short side."""
JPEG = (40, 25, 15, 10, 6)
"""JPEG quality."""
BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Added brightness, as a share of a pixel's range."""
CONTRAST = (0.75, 0.55, 0.4, 0.27, 0.17)
"""Factor on the distance to the mean."""
ROTATION = (5, 10, 20, 30, 45)
"""Degrees."""
SCALE = (0.85, 0.7, 0.55, 0.4, 0.3)
"""Size of the whole image inside a frame of its mean colour."""
CROP = (0.9, 0.8, 0.7, 0.6, 0.5)
"""Remaining share of each side, around the centre."""


def add_noise(pixels: np.ndarray, severity: int) -> np.ndarray:
    """Add Gaussian noise."""
    noise = np.random.default_rng(0).normal(0, 255 * NOISE[severity - 1], pixels.shape)
    return _clip(pixels + noise)


def blur(pixels: np.ndarray, severity: int) -> np.ndarray:
    """Apply a Gaussian blur."""
    radius = BLUR[severity - 1] * min(pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def compress(pixels: np.ndarray, severity: int) -> np.ndarray:
    """Save as a JPEG of low quality."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG[severity - 1])
    return np.asarray(Image.open(buffer).convert("RGB"))


def brighten(pixels: np.ndarray, severity: int) -> np.ndarray:
    """Increase brightness."""
    return _clip(pixels + 255.0 * BRIGHTNESS[severity - 1])


def fade(pixels: np.ndarray, severity: int) -> np.ndarray:
    """Reduce contrast."""
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    return _clip(mean + CONTRAST[severity - 1] * (pixels - mean))


def rotate(pixels: np.ndarray, severity: int) -> np.ndarray:
    """Rotate around the centre; the corners get the mean colour."""
    turned = Image.fromarray(pixels).rotate(
        ROTATION[severity - 1], Image.Resampling.BILINEAR, fillcolor=_mean_colour(pixels)
    )
    return np.asarray(turned)


def shrink(pixels: np.ndarray, severity: int) -> np.ndarray:
    """Shrink the whole image inside a frame of its mean colour."""
    height, width = pixels.shape[:2]
    share = SCALE[severity - 1]
    small = Image.fromarray(pixels).resize(
        (max(1, round(width * share)), max(1, round(height * share))), Image.Resampling.LANCZOS
    )
    frame = Image.new("RGB", (width, height), _mean_colour(pixels))
    frame.paste(small, ((width - small.width) // 2, (height - small.height) // 2))
    return np.asarray(frame)


def crop(pixels: np.ndarray, severity: int) -> np.ndarray:
    """Crop to the centre."""
    height, width = pixels.shape[:2]
    rows, columns = (max(1, round(side * CROP[severity - 1])) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    return pixels[top : top + rows, left : left + columns]


CORRUPTIONS: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] = MappingProxyType(
    {
        "noise": add_noise,
        "blur": blur,
        "JPEG": compress,
        "brightness": brighten,
        "contrast": fade,
        "rotation": rotate,
        "scale": shrink,
        "crop": crop,
    }
)
"""Name -> function of pixels uint8[H,W,3] and severity 1 to 5 that returns pixels."""
MOVING = frozenset({"rotation", "scale", "crop"})
"""Corruptions that move the object, so a target with a position would no longer be true."""


def _clip(pixels: np.ndarray) -> np.ndarray:
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def _mean_colour(pixels: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = pixels.reshape(-1, 3).mean(axis=0).round().astype(int).tolist()
    return red, green, blue
