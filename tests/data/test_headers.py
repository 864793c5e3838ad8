"""Files whose headers ask for too much are rejected before Pillow reads them."""

import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from rootstock.data import headers
from rootstock.data.decode import decode_grey, decode_image, no_warnings
from rootstock.data.limits import DecodeLimits
from rootstock.errors import ImageError
from tests.data.odd_images import chunk, encoded, lossless_jpeg, photo

MANY = 300_000


def tiff(*tags, data=b"", order="<"):
    """Return a TIFF whose first directory contains (tag, type, count, value)."""
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count)
        + struct.pack(order + ("HH" if kind == 3 else "I"), value, *([0] if kind == 3 else []))
        for tag, kind, count, value in tags
    )
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return start + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + data


SIZE = [(256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1)]


def huge_tile(order="<"):
    tile = [(322, 4, 1, 45_984), (323, 4, 1, 45_984), (324, 4, 1, 200), (325, 4, 1, 10)]
    return tiff(*SIZE, *tile, data=bytes(100), order=order)


def overlapping_tags():
    tags = [(1_000 + number, 7, 390_000, 50_000) for number in range(4_000)]
    return tiff(*SIZE, *tags, data=bytes(400_000))


def many_segments():
    content = encoded("RGB", "JPEG")
    return content[:2] + b"\xff\xe1\0\2" * MANY + content[2:]


def growing_exif():
    content, part = encoded("RGB", "JPEG"), b"Exif\0\0" + bytes(900)
    segment = b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part
    return content[:2] + segment * 2_000 + content[2:]


def many_chunks():
    content = encoded()
    return content[:33] + chunk(b"prVt", b"") * 100_000 + content[33:]


def long_comment():
    content = encoded("P", "GIF")
    at = 13 + 3 * 2 ** ((content[10] & 7) + 1)
    return content[:at] + b"!\xfe" + (b"\xff" + bytes(255)) * 20_000 + b"\0" + content[at:]


def many_scans(times=200):
    content = encoded("L", "JPEG", progressive=True, size=(400, 300))
    last, end = content.rindex(b"\xff\xda"), content.rindex(b"\xff\xd9")
    return content[:last] + content[last:end] * times + content[end:]


BOMBS = {
    "huge tile": (huge_tile, "too-many-pixels"),
    "huge tile of the other order": (lambda: huge_tile(">"), "too-many-pixels"),
    "overlapping tags": (overlapping_tags, "too-many-parts"),
    "many segments": (many_segments, "too-many-parts"),
    "exif in many segments": (growing_exif, "too-many-parts"),
    "many chunks": (many_chunks, "too-many-parts"),
    "long comment": (long_comment, "too-many-parts"),
    "many scans": (many_scans, "too-many-parts"),
    "pgm as text": (lambda: b"P2 4000 4000 255\n" + b"1 " * 9_000, "too-many-pixels"),
}


@pytest.mark.parametrize("decode", [decode_image, decode_grey])
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_neither_memory_nor_time(name, decode):
    build, reason = BOMBS[name]
    content = build()
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(ImageError) as caught, no_warnings():
        decode(content, DecodeLimits())
    spent, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.reason == reason
    assert peak < 2_000_000
    assert spent < 5


def test_scans_behind_a_false_end_are_counted():
    content = many_scans()
    first = content.index(b"\xff\xda")
    false_end = b"\xff\xfe\0\4\xff\xd9"  # a comment that contains an end marker
    with pytest.raises(ImageError, match="more than 100 scans"):
        decode_image(content[:first] + false_end + content[first:])


def test_what_looks_like_scans_behind_end_is_none():
    """Phones put a video behind the photo."""
    content = photo((320, 240)) + b"\xff\xda\0\3" * 500
    assert decode_image(content).width == 320
    progressive = encoded("RGB", "JPEG", progressive=True) + b"\xff\xda\0\3" * 500
    assert decode_image(progressive).width == 40


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}, {"optimize": True}]
)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_large_sound_file_of_any_kind_passes(monkeypatch, mode, options):
    monkeypatch.setattr(headers, "WALKED_FROM_BYTES", 0)
    assert decode_image(encoded(mode, "JPEG", **options)).width == 40


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "AVIF"])
def test_a_large_sound_file_of_another_format_passes(monkeypatch, kind):
    monkeypatch.setattr(headers, "WALKED_FROM_BYTES", 0)
    assert decode_image(encoded("RGB", kind)).width == 40


@pytest.mark.parametrize("big", [False, True])
def test_tiled_and_large_tiff_files_pass(big):
    buffer = io.BytesIO()
    image = Image.fromarray(np.zeros((900, 700), np.uint8))
    image.save(buffer, "TIFF", compression="tiff_lzw", big_tiff=big, strip_size=700)
    assert decode_image(buffer.getvalue()).width == 700


def test_exif_of_much_overlap_is_left_out():
    block = b"Exif\0\0" + tiff(*[(1_000 + n, 7, 40_000, 0) for n in range(1_000)]) + bytes(40_000)
    assert not headers.fits_tags(block)
    assert decode_image(encoded("RGB", "JPEG", exif=block)).width == 40


def test_metadata_of_any_size_does_not_damage_png():
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "x" * 3_000_000, zip=True)
    text = encoded(pnginfo=info)
    profile = encoded(icc_profile=bytes(3_000_000))
    late = encoded().removesuffix(chunk(b"IEND", b"")) + chunk(
        b"zTXt", b"a\0\0" + zlib.compress(bytes(3_000_000))
    )
    plain = decode_image(encoded()).pixels
    for content in (text, profile, late + chunk(b"IEND", b"")):
        assert (decode_image(content).pixels == plain).all()
        with no_warnings():
            assert decode_grey(content, DecodeLimits()).levels.size == (40, 30)


def test_max_pixels_may_be_above_pillows_own_limit():
    buffer = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(buffer, "TIFF", compression="group4")
    assert decode_outcome(buffer.getvalue()) == "too-many-pixels"
    headers.check_headers(buffer.getvalue(), DecodeLimits())
    with no_warnings():
        grey = decode_grey(buffer.getvalue(), DecodeLimits(max_pixels=200_000_000))
    assert grey.levels.size == (20_000, 10_000)


def decode_outcome(content, limits=None, **options):
    try:
        return decode_image(content, limits, **options).pixels.shape[:2]
    except ImageError as error:
        return error.reason


def test_lossless_jpeg_is_read_at_any_size_asked():
    content = lossless_jpeg(1_600, 1_200)
    assert decode_outcome(content) == decode_outcome(content, short_side=64) == (1_200, 1_600)


CUT = {
    "jpeg without its end": (encoded("RGB", "JPEG", size=(200, 150))[:-2], True),
    "half a jpeg": (encoded("RGB", "JPEG", size=(200, 150))[:9_000], True),
    "half a progressive jpeg": (
        encoded("RGB", "JPEG", progressive=True, size=(200, 150))[:9_000],
        True,
    ),
    "half a png": (encoded(size=(200, 150))[:30_000], True),
    "half a gif": (encoded("P", "GIF", size=(200, 150))[:9_000], True),
    "half a bmp": (encoded("RGB", "BMP", size=(200, 150))[:30_000], True),
    "half a ppm": (encoded("RGB", "PPM", size=(200, 150))[:30_000], True),
    "half a header": (encoded("RGB", "JPEG")[:100], False),
}


@pytest.mark.parametrize("name", CUT)
def test_truncated_file_is_used_only_if_configured(name):
    content, usable = CUT[name]
    use = DecodeLimits(truncated="use")
    assert isinstance(decode_outcome(content), str)
    assert (decode_outcome(content, use) == (150, 200)) is usable
    if usable:
        with no_warnings():
            assert decode_grey(content, use).levels.size == (200, 150)
        pixels = decode_image(content, use).pixels
        assert len(np.unique(pixels)) > 4


def test_limits_of_a_later_version_are_read():
    limits = DecodeLimits(max_pixels=5_000, truncated="use")
    assert DecodeLimits.from_dict({**limits.to_dict(), "later": 1}) == limits
