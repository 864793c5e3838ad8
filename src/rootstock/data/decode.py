"""Decode bytes to RGB pixels: the only module that opens an image.

The header is checked before a pixel is decoded, so that a small file cannot ask for much memory.
The rules, the same for training and service:

- EXIF orientation is applied; colour profiles are ignored.
- Only the first frame of an animation is used.
- CMYK, palette, grey and bilevel images become RGB.
- Deep greys, floats and transparency become RGB according to a `Rendering`.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rootstock.data.headers import (
    check_headers,
    check_scans,
    find_unread_format,
    fits_tags,
    without_metadata,
)
from rootstock.data.limits import DecodeLimits
from rootstock.data.read import check_bytes, read_file
from rootstock.data.rendering import PLAIN, Rendering, Tones, choose_rendering, to_rgb
from rootstock.data.rendering import to_grey_of_its_own as to_grey
from rootstock.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
_ORIENTATION_KEYS = frozenset(("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"))
"""Where Pillow looks for an orientation; without these, looking costs more than a small decode."""
_END_OF_JPEG = b"\xff\xd9"
T = TypeVar("T")

# Pillow's own limit comes first and cannot be set per image; `_check_header` is stricter.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class DecodedImage:
    """``pixels`` uint8[H,W,3] RGB, upright; ``mode`` and ``format`` as they were in the file.

    ``size`` is the width and height of the upright image in the file; a JPEG that is decoded at a
    reduced scale has fewer pixels.
    """

    pixels: np.ndarray
    mode: str
    format: str
    size: tuple[int, int]

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


def read_image(path: Path, limits: DecodeLimits | None = None) -> DecodedImage:
    """Decode an image file for display: deep greys over their own range, on a visible ground.

    Raises:
        ImageError: with the reasons of `decode_image`, or ``unreadable``.
    """
    limits = limits or DecodeLimits()
    return decode_image(read_file(path, limits).content, limits, rendering=None)


class GreyImage(NamedTuple):
    """``levels`` is Pillow's ``L``, upright; ``mode`` and ``format`` as they were in the file.

    ``tones``: values from which a set's `Rendering` is chosen, see `choose_rendering`.
    """

    levels: Image.Image
    mode: str
    format: str
    tones: Tones = ()


def decode_image(
    content: bytes,
    limits: DecodeLimits | None = None,
    *,
    short_side: int | None = None,
    rendering: Rendering | None = PLAIN,
) -> DecodedImage:
    """Decode the bytes of one image file.

    With a ``short_side`` a JPEG is decoded at an eighth, a quarter or half of its size if its
    shorter side is still at least that long: a photo of 12 megapixels takes a quarter of the time.
    ``rendering`` None: choose what suits the image, for display.

    Raises:
        ImageError: ``empty``, ``too-large``, ``not-an-image``, ``unsupported-FORMAT``,
            ``too-many-parts``, ``too-many-pixels``, ``aspect-ratio``, ``truncated`` or ``damaged``.
    """
    limits = limits or DecodeLimits()

    def decode(content: bytes) -> DecodedImage:
        image = _open(content, limits)
        mode, kind, size = image.mode, image.format or "", image.size
        if short_side is not None and image.draft(None, (short_side, short_side)):
            drawn = image.size
            with suppress(ImageError):  # a lossless JPEG has no reduced size
                upright = _load(image, limits, convert)
                return _pixels(upright, mode, kind, size if upright.size == drawn else size[::-1])
            image = _open(content, limits)
        upright = _load(image, limits, convert)
        return _pixels(upright, mode, kind, upright.size)

    convert = _to_rgb_of_its_own if rendering is None else partial(to_rgb, rendering=rendering)
    with no_warnings():
        return _with_repairs(content, limits, decode)


def decode_grey(content: bytes, limits: DecodeLimits) -> GreyImage:
    """Decode to grey levels; fail for the same files and reasons as `decode_image`.

    Call it within `no_warnings`, once for many images: entering it costs as much as a decode.
    """

    def decode(content: bytes) -> GreyImage:
        image = _open(content, limits)
        mode, kind = image.mode, image.format or ""
        if kind == "JPEG" and mode == "RGB" and _has_plain_colours(image):
            with suppress(ImageError):  # a lossless JPEG has no separate brightness
                image.draft("L", None)  # the file's brightness: colours are not computed
                return GreyImage(_load(image, limits, to_grey)[0], mode, kind)
            image = _open(content, limits)
        levels, tones = _load(image, limits, to_grey)
        return GreyImage(levels, mode, kind, tones)

    return _with_repairs(content, limits, decode)


def _to_rgb_of_its_own(image: Image.Image) -> Image.Image:
    return to_rgb(image, choose_rendering([(image.mode, to_grey(image)[1])]))


def _pixels(upright: Image.Image, mode: str, kind: str, size: tuple[int, int]) -> DecodedImage:
    try:
        return DecodedImage(np.asarray(upright, dtype=np.uint8), mode, kind, size)
    except MemoryError:
        raise _no_memory() from None


def _with_repairs(content: bytes, limits: DecodeLimits, decode: Callable[[bytes], T]) -> T:
    """Decode an image with broken metadata, or a missing end if the limits allow it."""
    try:
        return decode(content)
    except ImageError as error:
        repaired = content
        if error.reason == "damaged":
            repaired = without_metadata(content)
        elif error.reason == "truncated" and limits.truncated == "use":
            repaired = content + _END_OF_JPEG if content.startswith(b"\xff\xd8") else content
        if len(repaired) == len(content):
            raise
        with suppress(ImageError):
            return decode(repaired)
        raise


def _has_plain_colours(image: Image.Image) -> bool:
    """Return whether brightness and colours fit; otherwise only decoding in colour would fail."""
    return [part[1:3] for part in getattr(image, "layer", ())[1:]] == [(1, 1), (1, 1)]


def no_warnings() -> warnings.catch_warnings[None]:
    """Silence Pillow's warnings about odd metadata and large images; this module checks both."""
    return warnings.catch_warnings(action="ignore")


def _open(content: bytes, limits: DecodeLimits) -> Image.Image:
    check_bytes(content, limits)
    check_headers(content, limits)
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise _unknown(content) from None
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise many types
        raise ImageError("damaged", f"the header is damaged: {_one_line(error)}") from None
    _check_header(image, limits)
    if _is_jpeg(image):
        check_scans(content, image)
    return image


def _unknown(content: bytes) -> ImageError:
    if name := find_unread_format(content):
        return ImageError(
            f"unsupported-{name.lower().replace(' ', '-')}",
            f"{name} files are not supported; convert it to JPEG, PNG or TIFF",
        )
    names = ", ".join(FORMATS)
    return ImageError(
        "not-an-image", f"the content is not an image in a supported format ({names})"
    )


def _check_header(image: Image.Image, limits: DecodeLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageError(
            "too-many-pixels",
            f"{width} x {height} pixels is more than the limit of {limits.max_pixels:,}",
        )
    if min(width, height) < 1:
        raise ImageError("damaged", f"the header claims {width} x {height} pixels")
    if max(width, height) > limits.max_aspect_ratio * min(width, height):
        raise ImageError(
            "aspect-ratio",
            f"{width} x {height} pixels: one side is more than {limits.max_aspect_ratio:g} times "
            "the other",
        )
    if limits.max_side is not None and max(width, height) > limits.max_side:
        raise ImageError(
            "too-many-pixels",
            f"{width} x {height} pixels: a side is longer than {limits.max_side:,}",
        )


def _load(image: Image.Image, limits: DecodeLimits, convert: Callable[[Image.Image], T]) -> T:
    try:
        image.seek(0)
        try:
            image.load()
        except OSError as error:
            if limits.truncated == "refuse" or not _is_truncation(error) or _is_jpeg(image):
                raise
            image.tile = []  # type: ignore[attr-defined]  # keep the part that is decoded
        if image.format == "TIFF" or not _ORIENTATION_KEYS.isdisjoint(image.info):
            _drop_broken_exif(image)
            ImageOps.exif_transpose(image, in_place=True)
        return convert(image)
    except MemoryError:
        raise _no_memory() from None
    except Exception as error:  # noqa: BLE001 - as above, and the image is unusable
        what, reason = "the pixels cannot be decoded", "damaged"
        if _is_truncation(error):
            what, reason = "the file ends early", "truncated"
        raise ImageError(reason, f"{what}: {_one_line(error)}") from None


def _is_jpeg(image: Image.Image) -> bool:
    return image.format in ("JPEG", "MPO")


def _is_truncation(error: Exception) -> bool:
    text = _one_line(error)
    return "truncated" in text or "unexpected end" in text.lower()


def _no_memory() -> ImageError:
    return ImageError("too-many-pixels", "not enough memory to decode the image")


def _drop_broken_exif(image: Image.Image) -> None:
    """Remove damaged metadata, so that the pixels can still be used."""
    block = image.info.get("exif", b"")
    raw = image.info.get("Raw profile type exif", "")
    try:
        if raw:
            block = bytes.fromhex("".join(raw.split("\n")[3:]))
        if block and not fits_tags(block):
            raise ValueError
        image.getexif()
    except Exception:  # noqa: BLE001 - Pillow's parsers raise many types
        image.info.pop("exif", None)
        image.info.pop("Raw profile type exif", None)


def _one_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
