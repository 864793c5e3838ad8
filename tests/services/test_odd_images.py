"""Odd and hostile files: the service answers 200 or 422, never 500, as the decoder decides."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from rootstock.data.decode import DecodeLimits, decode_image
from rootstock.errors import ImageError
from tests.bundles import jpeg


def encoded(mode, kind, *, size=(40, 30), **options):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(pixels[..., 0].astype(np.float32) / 9)
    else:
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bomb(width, height):
    """A header that asks for many pixels, and a few bytes of them."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def animation():
    frames = [Image.new("P", (20, 20), colour) for colour in (1, 2, 3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


GOOD = {
    **{f"png {mode}": encoded(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    "png 16 bits": encoded("I;16", "PNG"),
    "tiff float": encoded("F", "TIFF"),
    "tiff rgb": encoded("RGB", "TIFF"),
    "jpeg grey": encoded("L", "JPEG"),
    "jpeg cmyk": encoded("CMYK", "JPEG"),
    "jpeg progressive": encoded("RGB", "JPEG", progressive=True),
    "webp": encoded("RGBA", "WEBP"),
    "bmp": encoded("RGB", "BMP"),
    "gif animation": animation(),
    "one pixel": encoded("RGB", "PNG", size=(1, 1)),
    "long and thin": encoded("RGB", "PNG", size=(400, 10)),
    "trailing rubbish": jpeg(0) + b"rubbish" * 10,
}
BAD = {
    "nothing": b"",
    "one byte": b"x",
    "text": b"hello, world" * 50,
    "html": b"<html><body>404</body></html>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "pdf": b"%PDF-1.7\n%%EOF",
    "zip": b"PK\x03\x04" + b"\0" * 60,
    "zeros": b"\0" * 2000,
    "jpeg cut in the header": jpeg(0)[:100],
    "jpeg cut in the pixels": jpeg(0)[:1200],
    "png cut": encoded("RGB", "PNG")[:200],
    "png of many pixels": png_bomb(60_000, 60_000),
    "png of no pixels": png_bomb(0, 10),
    "png with missing rows": png_bomb(300, 300),
    "gif header only": b"GIF89a",
    "a sliver": encoded("L", "PNG", size=(2000, 1)),
    "noise after a png signature": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
}


def outcome(content):
    try:
        decode_image(content, DecodeLimits(max_pixels=50_000_000))
    except ImageError as error:
        return error.reason
    return "ok"


@pytest.mark.parametrize("name", GOOD)
def test_an_odd_but_good_image_is_answered(client, name):
    response = client.post("/v1/predict", files={"files": (name, GOOD[name])})
    assert response.status_code == 200, response.text
    assert len(response.json()["predictions"][0]["top"]) == 3


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_a_422_with_the_decoders_reason(client, name):
    response = client.post("/v1/predict", content=BAD[name], headers={"content-type": "image/png"})
    assert response.status_code == 422, response.text
    assert response.json()["reason"] == outcome(BAD[name])


def test_damage_anywhere_is_never_a_500(client):
    random = np.random.default_rng(0)
    for content in (jpeg(0), GOOD["png P"], GOOD["webp"], GOOD["tiff rgb"], GOOD["gif animation"]):
        for _ in range(20):
            damaged = bytearray(content)
            for place in random.integers(0, len(content), 4):
                damaged[place] = random.integers(256)
            response = client.post("/v1/predict", files={"files": ("x", bytes(damaged))})
            assert response.status_code in (200, 422)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\\b.jpg", "ä ö.jpg", "x" * 300, "<b>.jpg"])
def test_any_file_name_comes_back_as_it_was(client, name):
    response = client.post("/v1/predict", files={"files": (name, jpeg(0))})
    assert response.json()["predictions"][0]["filename"] == name
