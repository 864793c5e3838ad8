"""Bytes in, RGB pixels out: the only place that opens an image.

The header is judged before a pixel is decoded, so that a small file cannot ask for much memory.
What is decided, for training and service alike:

- EXIF orientation is applied; colour profiles are ignored.
- Transparency is laid on white; of an animation the first frame is taken.
- 16-bit grey keeps its upper eight bits; float and 32-bit grey is stretched over its range.
- CMYK, palette, grey and bilevel images become RGB.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rootstock.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_ORIENTATION_KEYS = frozenset(("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"))
"""Where Pillow looks for an orientation; without them looking costs more than a small decode."""
_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True)
class DecodeLimits:
    """What is refused undecoded: file size in bytes, pixels, longer over shorter side, more.

    ``max_side`` None: any. Frames of an animation after the first are never read.
    """

    max_bytes: int = 100_000_000
    max_pixels: int = 100_000_000
    max_aspect_ratio: float = 50.0
    max_side: int | None = None


@dataclass(frozen=True)
class DecodedImage:
    """``pixels`` uint8[H,W,3] RGB, upright; ``mode`` and ``format`` as they were in the file."""

    pixels: np.ndarray
    mode: str
    format: str

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


def read_image(
    path: Path, limits: DecodeLimits | None = None, *, short_side: int | None = None
) -> DecodedImage:
    """Decode an image file.

    Raises:
        ImageError: with the reasons of `decode_image`, or ``unreadable``.
    """
    limits = limits or DecodeLimits()
    return decode_image(read_file(path, limits).content, limits, short_side=short_side)


class ReadFile(NamedTuple):
    """``changed`` is the file's time of change in nanoseconds, before it was read."""

    content: bytes
    changed: int


def read_file(path: Path | str, limits: DecodeLimits) -> ReadFile:
    """The content of an image file, refused unread where it is too large.

    Raises:
        ImageError: ``unreadable``, ``too-large`` or ``empty``.
    """
    try:
        # The system's own calls: Python's files and pathlib's take twice as long for a small one.
        handle = _open_file(path)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("unreadable", "it is not a regular file")
            if status.st_size > limits.max_bytes:
                raise _too_large(limits)
            size = status.st_size + 1
            content = os.read(handle, size)
            # One read may give less than there is.
            while len(content) < size and (more := os.read(handle, size - len(content))):
                content += more
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ImageError("unreadable", f"the file cannot be read: {why}") from None
    _check_bytes(content, limits)
    return ReadFile(content, status.st_mtime_ns)


def _open_file(path: Path | str) -> int:
    try:
        # A pipe is opened without waiting for its writer.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except BlockingIOError:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - a path may be text
            raise
        return os.open(path, os.O_RDONLY)  # another holds a lease on it, and now gives it back


class GreyImage(NamedTuple):
    """``levels`` is Pillow's ``L``, upright; ``mode`` and ``format`` as they were in the file."""

    levels: Image.Image
    mode: str
    format: str


def decode_image(
    content: bytes, limits: DecodeLimits | None = None, *, short_side: int | None = None
) -> DecodedImage:
    """Decode the bytes of one image file.

    With a ``short_side`` a JPEG is decoded at an eighth, a quarter or half its size if its shorter
    side is still at least that long: a photo of 12 megapixels costs a quarter of the time.

    Raises:
        ImageError: ``empty``, ``too-large``, ``not-an-image``, ``unsupported``,
            ``too-many-pixels``, ``aspect-ratio``, ``truncated`` or ``damaged``.
    """
    with no_warnings():
        image = _open(content, limits or DecodeLimits())
        if short_side is not None:
            image.draft(None, (short_side, short_side))
        mode, kind = image.mode, image.format or ""
        upright = _load(image, _to_rgb)
    try:
        pixels = np.asarray(upright, dtype=np.uint8)
    except MemoryError:
        raise _no_memory() from None
    return DecodedImage(pixels, mode, kind)


def decode_grey(content: bytes, limits: DecodeLimits) -> GreyImage:
    """Decode to grey levels; fails where `decode_image` does, and for its reasons.

    Call it within `no_warnings`: once for many images, since it costs as much as reading one.
    """
    image = _open(content, limits)
    mode, kind = image.mode, image.format or ""
    if kind == "JPEG" and mode == "RGB" and _has_plain_colours(image):
        with suppress(ImageError):  # of a lossless one the brightness alone cannot be had
            image.draft("L", None)  # the file's own brightness: colours are read, but not computed
            return GreyImage(_load(image, _to_grey), mode, kind)
        image = _open(content, limits)
    return GreyImage(_load(image, _to_grey), mode, kind)


def _has_plain_colours(image: Image.Image) -> bool:
    """Others may not fit the brightness' samples, of which only decoding in colour complains."""
    return [part[1:3] for part in getattr(image, "layer", ())[1:]] == [(1, 1), (1, 1)]


def no_warnings() -> warnings.catch_warnings[None]:
    """Pillow warns of odd metadata and of large images; both are decided here."""
    return warnings.catch_warnings(action="ignore")


def _check_bytes(content: bytes, limits: DecodeLimits) -> None:
    if not content:
        raise ImageError("empty", "the file is empty")
    if len(content) > limits.max_bytes:
        raise _too_large(limits)


def _too_large(limits: DecodeLimits) -> ImageError:
    return ImageError("too-large", f"the file has more than {limits.max_bytes:,} bytes")


def _open(content: bytes, limits: DecodeLimits) -> Image.Image:
    _check_bytes(content, limits)
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        names = ", ".join(FORMATS)
        raise ImageError(
            "not-an-image", f"the content is not an image of a known format ({names})"
        ) from None
    except Image.DecompressionBombError:
        raise ImageError("too-many-pixels", "the header asks for far too many pixels") from None
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise whatever they meet
        raise ImageError("damaged", f"the header is damaged: {_one_line(error)}") from None
    _check_header(image, limits)
    return image


def _check_header(image: Image.Image, limits: DecodeLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageError(
            "too-many-pixels",
            f"{width} x {height} is more than {limits.max_pixels:,} pixels",
        )
    if min(width, height) < 1:
        raise ImageError("damaged", f"the header gives {width} x {height} pixels")
    if max(width, height) > limits.max_aspect_ratio * min(width, height):
        raise ImageError(
            "aspect-ratio",
            f"{width} x {height} is longer than {limits.max_aspect_ratio:g} times its width",
        )
    if limits.max_side is not None and max(width, height) > limits.max_side:
        raise ImageError(
            "too-many-pixels", f"{width} x {height} has a side over {limits.max_side:,} pixels"
        )


def _load(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    try:
        image.seek(0)
        image.load()
        if image.format == "TIFF" or not _ORIENTATION_KEYS.isdisjoint(image.info):
            _drop_broken_exif(image)
            ImageOps.exif_transpose(image, in_place=True)
        return convert(image)
    except MemoryError:
        raise _no_memory() from None
    except Exception as error:  # noqa: BLE001 - as above, and the image is unusable
        text = _one_line(error)
        truncated = "truncated" in text or "unexpected end" in text.lower()
        reason = "truncated" if truncated else "damaged"
        raise ImageError(reason, f"the pixels cannot be decoded: {text}") from None


def _no_memory() -> ImageError:
    return ImageError("too-many-pixels", "there is not enough memory to decode it")


def _drop_broken_exif(image: Image.Image) -> None:
    try:
        image.getexif()
    except Exception:  # noqa: BLE001 - damaged metadata is no reason to lose the pixels
        image.info.pop("exif", None)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image  # convert would copy it
    if image.mode in _SIXTEEN_BIT_MODES:
        deep = np.asarray(image).astype(np.uint16)
        return Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "I":
        # Pillow opens 16-bit PNG files so where it has no better mode.
        values = np.asarray(image)
        if values.min() >= 0 and values.max() <= 65_535:
            return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
        return _stretch(values)
    if image.mode == "F":
        return _stretch(np.asarray(image))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode == "L" and "transparency" not in image.info:
        return image
    return _to_rgb(image).convert("L")


def _stretch(values: np.ndarray) -> Image.Image:
    finite = np.where(np.isfinite(values), values, 0.0).astype(np.float64)
    low, high = finite.min(), finite.max()
    scaled = (finite - low) * (255.0 / max(high - low, 1e-12))
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")


def _one_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
