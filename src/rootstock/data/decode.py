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
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rootstock.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_ORIENTING = frozenset(("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"))
"""Where Pillow looks for an orientation; without them looking costs more than a small decode."""
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


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
    return decode_image(read_bytes(path, limits), limits, short_side=short_side)


def read_bytes(path: Path | str, limits: DecodeLimits | None = None) -> bytes:
    """The content of an image file, refused unread where it is too large.

    Raises:
        ImageError: ``unreadable`` or ``too-large``.
    """
    limits = limits or DecodeLimits()
    try:
        # Not pathlib's and not buffered: each saves a third of what reading a small file takes.
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            # Asked for a number of bytes, Python takes as much memory at once.
            wanted = min(os.fstat(file.fileno()).st_size, limits.max_bytes) + 1
            content = file.read(wanted)
            # An unbuffered read may give less than there is.
            while len(content) < wanted and (more := file.read(wanted - len(content))):
                content += more
    except OSError as error:
        raise ImageError("unreadable", f"the file cannot be read: {error.strerror}") from None
    _check_bytes(content, limits)
    return content


@dataclass(frozen=True)
class Picture:
    """``upright`` is Pillow's RGB image; ``mode`` and ``format`` as they were in the file."""

    upright: Image.Image
    mode: str
    format: str


def decode_image(
    content: bytes, limits: DecodeLimits | None = None, *, short_side: int | None = None
) -> DecodedImage:
    """Decode the bytes of one image file to an array; all else is `decode_picture`'s."""
    picture = decode_picture(content, limits, short_side=short_side)
    try:
        pixels = np.asarray(picture.upright, dtype=np.uint8)
    except MemoryError:
        raise _no_memory() from None
    return DecodedImage(pixels, picture.mode, picture.format)


def decode_picture(
    content: bytes, limits: DecodeLimits | None = None, *, short_side: int | None = None
) -> Picture:
    """Decode the bytes of one image file, pixels left to Pillow.

    With a ``short_side`` a JPEG is decoded at an eighth, a quarter or half its size if its shorter
    side is still at least that long: a photo of 12 megapixels costs a quarter of the time.

    Raises:
        ImageError: ``empty``, ``too-large``, ``not-an-image``, ``unsupported``,
            ``too-many-pixels``, ``aspect-ratio``, ``truncated`` or ``damaged``.
    """
    limits = limits or DecodeLimits()
    _check_bytes(content, limits)
    # Pillow warns of odd metadata and of large images; both are decided here.
    with warnings.catch_warnings(action="ignore"), _open(content) as image:
        _check_header(image, limits)
        if short_side is not None:
            image.draft(None, (short_side, short_side))
        mode, kind = image.mode, image.format or ""
        return Picture(_load(image), mode, kind)


def _check_bytes(content: bytes, limits: DecodeLimits) -> None:
    if not content:
        raise ImageError("empty", "the file is empty")
    if len(content) > limits.max_bytes:
        raise ImageError("too-large", f"the file has more than {limits.max_bytes:,} bytes")


def _open(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        names = ", ".join(FORMATS)
        raise ImageError(
            "not-an-image", f"the content is not an image of a known format ({names})"
        ) from None
    except Image.DecompressionBombError:
        raise ImageError("too-many-pixels", "the header asks for far too many pixels") from None
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise whatever they meet
        raise ImageError("damaged", f"the header is damaged: {_one_line(error)}") from None


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


def _load(image: Image.Image) -> Image.Image:
    try:
        image.seek(0)
        image.load()
        if image.format == "TIFF" or not _ORIENTING.isdisjoint(image.info):
            _drop_broken_exif(image)
            ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image)
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
    if image.mode in _SIXTEEN_BITS:
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


def _stretch(values: np.ndarray) -> Image.Image:
    finite = np.where(np.isfinite(values), values, 0.0).astype(np.float64)
    low, high = finite.min(), finite.max()
    scaled = (finite - low) * (255.0 / max(high - low, 1e-12))
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")


def _one_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
