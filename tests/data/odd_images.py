"""Odd and broken image files, built in code, each with its decided outcome."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image


class Odd(NamedTuple):
    """``outcome`` is ``ok`` or the reason for the quarantine."""

    build: Callable[[], bytes]
    outcome: str


def picture(mode="RGB", size=(40, 30)) -> Image.Image:
    """Return random pixels in any mode."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(pixels[..., 0].astype(np.int32) * 1000)
    if mode == "F":
        return Image.fromarray(pixels[..., 0].astype(np.float32) / 9)
    return Image.fromarray(pixels).convert(mode)


def encoded(mode="RGB", kind="PNG", *, size=(40, 30), **options) -> bytes:
    """Return `picture` as a file."""
    buffer = io.BytesIO()
    picture(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


def rotated(orientation: int) -> bytes:
    """Return a JPEG of 40 x 20 pixels, its left half red, with an EXIF orientation."""
    image = Image.new("RGB", (40, 20), "blue")
    image.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def photo(size: tuple[int, int], *, orientation: int = 1) -> bytes:
    """Return a JPEG with large shapes and some grain, like a camera's."""
    random = np.random.default_rng(1)
    blocks = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    pixels = np.asarray(blocks.resize(size, Image.Resampling.BICUBIC), np.int16)
    grainy = np.clip(pixels + random.integers(-20, 21, pixels.shape), 0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(grainy).save(buffer, "JPEG", quality=90, exif=exif)
    return buffer.getvalue()


def lossless_jpeg(width: int = 40, height: int = 30) -> bytes:
    """Return one grey in three colours, coded without loss: all samples are equal."""
    colours = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    frame = struct.pack(">HBHHB", 17, 8, height, width, 3) + colours
    table = struct.pack(">HB", 20, 0) + bytes([1, *[0] * 16])
    scan = struct.pack(">HB", 12, 3) + bytes([1, 0, 2, 0, 3, 0, 1, 0, 0])
    samples = bytes(width * height * 3 // 8)
    head = b"\xff\xd8\xff\xc3" + frame + b"\xff\xc4" + table + b"\xff\xda" + scan
    return head + samples + b"\xff\xd9"


def animation(kind: str) -> bytes:
    """Return three frames: red, green, blue."""
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_header(width: int, height: int, *extra: bytes) -> bytes:
    """Return a PNG that declares many pixels and has a few bytes."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + body + chunk(b"IEND", b"")


def broken_exif() -> bytes:
    """Return a good JPEG with a damaged EXIF block."""
    return encoded("RGB", "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff rubbish")


def broken_profile() -> bytes:
    """Return a good JPEG with a damaged colour profile."""
    return encoded("RGB", "JPEG", icc_profile=b"not a profile")


def bad_checksum() -> bytes:
    """Return a PNG with one flipped bit in its pixels."""
    content = bytearray(encoded())
    content[content.index(b"IDAT") + 20] ^= 1
    return bytes(content)


ODD_IMAGES = {
    "grey": Odd(lambda: encoded("L"), "ok"),
    "bilevel": Odd(lambda: encoded("1"), "ok"),
    "palette": Odd(lambda: encoded("P"), "ok"),
    "palette with transparency": Odd(lambda: encoded("P", transparency=0), "ok"),
    "grey with alpha": Odd(lambda: encoded("LA"), "ok"),
    "colour with alpha": Odd(lambda: encoded("RGBA"), "ok"),
    "16-bit grey": Odd(lambda: encoded("I;16"), "ok"),
    "16-bit tiff": Odd(lambda: encoded("I;16", "TIFF"), "ok"),
    "32-bit tiff": Odd(lambda: encoded("I", "TIFF"), "ok"),
    "float tiff": Odd(lambda: encoded("F", "TIFF"), "ok"),
    "cmyk jpeg": Odd(lambda: encoded("CMYK", "JPEG"), "ok"),
    "cmyk tiff": Odd(lambda: encoded("CMYK", "TIFF"), "ok"),
    "large jpeg": Odd(lambda: photo((1_200, 900)), "ok"),
    "large rotated jpeg": Odd(lambda: photo((900, 1_200), orientation=6), "ok"),
    "progressive jpeg": Odd(lambda: encoded("RGB", "JPEG", progressive=True), "ok"),
    "lossless jpeg": Odd(lossless_jpeg, "ok"),
    "webp with alpha": Odd(lambda: encoded("RGBA", "WEBP"), "ok"),
    "bmp": Odd(lambda: encoded("RGB", "BMP"), "ok"),
    "animated gif": Odd(lambda: animation("GIF"), "ok"),
    "animated webp": Odd(lambda: animation("WEBP"), "ok"),
    "animated png": Odd(lambda: animation("PNG"), "ok"),
    **{f"orientation {n}": Odd(lambda n=n: rotated(n), "ok") for n in range(1, 9)},
    "unknown orientation": Odd(lambda: rotated(99), "ok"),
    "broken exif": Odd(broken_exif, "ok"),
    "broken colour profile": Odd(broken_profile, "ok"),
    "one pixel": Odd(lambda: encoded(size=(1, 1)), "ok"),
    "trailing rubbish": Odd(lambda: encoded("RGB", "JPEG") + b"rubbish" * 9, "ok"),
    "nothing": Odd(lambda: b"", "empty"),
    "one byte": Odd(lambda: b"x", "not-an-image"),
    "text": Odd(lambda: b"hello, world" * 50, "not-an-image"),
    "web page": Odd(lambda: b"<html><body>404</body></html>", "not-an-image"),
    "svg": Odd(lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not-an-image"),
    "pdf": Odd(lambda: b"%PDF-1.7\n%%EOF", "not-an-image"),
    "zip": Odd(lambda: b"PK\x03\x04" + b"\0" * 60, "not-an-image"),
    "zeros": Odd(lambda: b"\0" * 2000, "not-an-image"),
    "pickle": Odd(lambda: b"\x80\x04cos\nsystem\n(S'true'\ntR.", "not-an-image"),
    "jpeg cut in the header": Odd(lambda: encoded("RGB", "JPEG")[:100], "damaged"),
    "jpeg cut in the pixels": Odd(lambda: encoded("RGB", "JPEG")[:1200], "truncated"),
    "png cut": Odd(lambda: encoded()[:800], "truncated"),
    "png with a wrong checksum": Odd(bad_checksum, "damaged"),
    "png of too many pixels": Odd(lambda: png_header(60_000, 60_000), "too-many-pixels"),
    "png just over the limit": Odd(lambda: png_header(10_001, 10_000), "too-many-pixels"),
    "png without its rows": Odd(lambda: png_header(300, 300), "truncated"),
    "png of no pixels": Odd(lambda: png_header(0, 10), "not-an-image"),
    "sliver": Odd(lambda: encoded("L", size=(2000, 1)), "aspect-ratio"),
    "jpeg sliver": Odd(lambda: encoded("L", "JPEG", size=(1, 65_500)), "aspect-ratio"),
    "gif header only": Odd(lambda: b"GIF89a", "not-an-image"),
    "jpeg 2000": Odd(lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 50, "unsupported-jpeg-2000"),
    "heic": Odd(lambda: b"\0\0\0\x18ftypheic" + b"\0" * 50, "unsupported-heic"),
    "psd": Odd(lambda: b"8BPS\0\1" + b"\0" * 50, "unsupported-psd"),
    "dicom": Odd(lambda: b"\0" * 128 + b"DICM" + b"\0" * 50, "unsupported-dicom"),
    "grey pgm": Odd(lambda: encoded("L", "PPM"), "ok"),
    "colour ppm": Odd(lambda: encoded("RGB", "PPM"), "ok"),
    "16-bit pgm": Odd(lambda: encoded("I;16", "PPM"), "ok"),
    "pgm without an end of its header": Odd(lambda: b"P5 #" + b" " * 5_000, "damaged"),
    "avif": Odd(lambda: encoded("RGB", "AVIF"), "ok"),
}
