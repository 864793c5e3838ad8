import dataclasses
import fcntl
import io
import itertools
import os
import signal

import numpy as np
import pytest
from PIL import Image

from rootstock.data.decode import decode_grey, decode_image, no_warnings, read_image
from rootstock.data.limits import DecodeLimits
from rootstock.data.preprocess import Preprocess
from rootstock.data.read import read_file
from rootstock.errors import ImageError
from tests.data.odd_images import ODD_IMAGES, animation, encoded, photo, rotated


def outcome(content, limits=None, decode=decode_image):
    try:
        return "ok" if decode(content, limits or DecodeLimits()) else ""
    except ImageError as error:
        return error.reason


def grey_outcome(content):
    with no_warnings():
        return outcome(content, decode=decode_grey)


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_every_odd_image_has_its_decided_outcome(name):
    content = ODD_IMAGES[name].build()
    assert outcome(content) == grey_outcome(content) == ODD_IMAGES[name].outcome


def test_what_fails_in_colour_fails_in_grey():
    """Otherwise the index would accept an image that training and the service cannot read."""
    seen = set()
    for kind, options in JPEGS:
        content = encoded(kind="JPEG", size=(50, 37), **options)
        for number in range(400):
            broken = mutated(content, np.random.default_rng([kind, number]))
            assert outcome(broken) == grey_outcome(broken)
            seen.add(outcome(broken))
    assert {"ok", "truncated", "damaged", "not-an-image"} <= seen


JPEGS = [(0, {}), (1, {"subsampling": 0}), (2, {"progressive": True, "optimize": True})]


def mutated(content, rng):
    """Flip a few bytes, or cut off the end."""
    broken = bytearray(content)
    for place in rng.integers(0, len(broken), rng.integers(1, 4)):
        broken[place] = rng.integers(256)
    return bytes(broken[: rng.integers(2, len(broken))] if rng.random() < 0.3 else broken)


@pytest.mark.parametrize("samples", [*itertools.product([0x11, 0x12, 0x21, 0x22, 0x13], repeat=3)])
def test_any_sampling_fails_alike_in_grey_and_colour(samples):
    content = bytearray(encoded(kind="JPEG", size=(48, 48)))
    frame = content.find(b"\xff\xc0")
    for part, sampling in enumerate(samples):
        content[frame + 11 + 3 * part] = sampling
    assert outcome(bytes(content)) == grey_outcome(bytes(content))


@pytest.mark.parametrize("name", [name for name, odd in ODD_IMAGES.items() if odd.outcome == "ok"])
def test_grey_levels_are_those_of_the_colours(name):
    content = ODD_IMAGES[name].build()
    with no_warnings():
        grey, colours = decode_grey(content, DecodeLimits()), decode_image(content)
    assert (grey.mode, grey.format) == (colours.mode, colours.format)
    apart = np.asarray(Image.fromarray(colours.pixels).convert("L"), int) - np.asarray(grey.levels)
    # In a JPEG's most vivid colours the stored brightness is outside of the displayed range.
    assert np.abs(apart).mean() < 3
    if colours.format != "JPEG" and colours.mode != "F":  # floats have their own range there
        assert (apart == 0).all()


@pytest.mark.parametrize("name", [name for name, odd in ODD_IMAGES.items() if odd.outcome == "ok"])
def test_a_usable_image_becomes_rgb_bytes(name):
    image = decode_image(ODD_IMAGES[name].build())
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape == (image.height, image.width, 3)


@pytest.mark.parametrize(
    ("orientation", "size", "red_corner"),
    [
        (1, (40, 20), (0, 0)),
        (2, (40, 20), (0, -1)),
        (3, (40, 20), (0, -1)),
        (4, (40, 20), (0, 0)),
        (5, (20, 40), (0, 0)),
        (6, (20, 40), (0, 0)),
        (7, (20, 40), (-1, 0)),
        (8, (20, 40), (-1, 0)),
    ],
)
def test_exif_orientation_is_applied(orientation, size, red_corner):
    image = decode_image(rotated(orientation))
    assert (image.width, image.height) == size
    red, _, blue = image.pixels[red_corner].astype(int)
    assert red > 200 > 60 > blue


@pytest.mark.skipif(not hasattr(fcntl, "F_SETLEASE"), reason="leases are Linux's")
def test_a_file_under_anothers_lease_is_waited_for(tmp_path):
    """File servers hold such leases, and release them for another reader."""
    path = tmp_path / "leased.png"
    path.write_bytes(encoded())
    holder = os.open(path, os.O_RDWR)
    told = []

    def give_back(*_):
        told.append(1)
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    before = signal.signal(signal.SIGIO, give_back)
    try:
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        assert read_file(path, DecodeLimits()).content == encoded()
        assert told
    except OSError as error:
        pytest.skip(f"this file system knows no leases: {error}")
    finally:
        signal.signal(signal.SIGIO, before)
        os.close(holder)


def test_transparent_pixels_become_white():
    buffer = io.BytesIO()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(buffer, "PNG")
    assert (decode_image(buffer.getvalue()).pixels == 255).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_taken(kind):
    image = decode_image(animation(kind))
    assert tuple(image.pixels[10, 10] > 128) == (True, False, False)


def test_sixteen_bits_keep_their_upper_eight():
    image = decode_image(encoded("I;16"))
    plain = decode_image(encoded("RGB"))
    assert (image.pixels[..., 0] == plain.pixels[..., 0]).all()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (DecodeLimits(max_bytes=100), "more than 100 bytes"),
        (DecodeLimits(max_pixels=500), "40 x 30 pixels is more than the limit of 500"),
        (
            DecodeLimits(max_aspect_ratio=1.2),
            "40 x 30 pixels: one side is more than 1.2 times the other",
        ),
    ],
)
def test_limits_are_said_with_their_numbers(limits, message):
    with pytest.raises(ImageError, match=message):
        decode_image(encoded(), limits)


@pytest.mark.parametrize(
    ("side", "size"),
    [(None, (1600, 1200)), (601, (1600, 1200)), (600, (800, 600)), (300, (400, 300)),
     (150, (200, 150)), (10, (200, 150))],
)  # fmt: skip
def test_large_jpeg_is_decoded_no_smaller_than_asked(side, size):
    image = decode_image(photo((1600, 1200)), short_side=side)
    assert (image.width, image.height) == size


def test_only_jpeg_is_decoded_smaller():
    content = encoded(size=(400, 300))
    plain, asked = (decode_image(content, short_side=side).pixels for side in (None, 40))
    assert (asked == plain).all()


@pytest.mark.parametrize("orientation", [1, 6])
def test_scaled_decoding_gives_network_nearly_same_pixels(orientation):
    """The tolerance in the docs: at most 4 grey levels, .5 on average."""
    content = photo((1600, 1200), orientation=orientation)
    preprocess = Preprocess(224, (0.5,) * 3, (0.5,) * 3, "bicubic", 0.875, scaled=True)
    scaled = decode_image(content, short_side=preprocess.decoded_side)
    whole = decode_image(content)
    assert scaled.pixels.size < whole.pixels.size / 3
    first, second = (preprocess.fit(one.pixels).astype(int) for one in (scaled, whole))
    assert np.abs(first - second).max() <= 4
    assert np.abs(first - second).mean() <= 0.5


def test_a_missing_file_is_unreadable(tmp_path):
    with pytest.raises(ImageError, match="cannot be read: No such file") as caught:
        read_image(tmp_path / "none.png")
    assert caught.value.reason == "unreadable"


def test_damage_anywhere_never_escapes_as_another_error():
    random = np.random.default_rng(0)
    for name in ("cmyk jpeg", "palette", "webp with alpha", "cmyk tiff", "animated gif"):
        content = ODD_IMAGES[name].build()
        for _ in range(40):
            damaged = bytearray(content)
            for place in random.integers(0, len(content), 4):
                damaged[place] = random.integers(256)
            assert outcome(bytes(damaged))


def as_tiff(values):
    """Return a TIFF of 32-bit integers or of floats."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([0, 255, 256, 65_535], [0, 0, 1, 255]),  # as sixteen bits: the upper eight
        ([0, 65_536, 131_072, 196_608], [0, 85, 170, 255]),  # beyond: stretched
        ([-2, -1, 0, 2], [0, 63, 127, 255]),
        ([1000, 1000, 1000, 1000], [3, 3, 3, 3]),
        ([100_000, 100_000, 100_000, 100_000], [0, 0, 0, 0]),
    ],
)
def test_integers_of_32_bits_become_grey_levels(values, levels):
    image = decode_image(as_tiff(np.array([values], np.int32)))
    assert image.pixels[0, :, 0].tolist() == levels
    assert image.mode == "I"


def test_floats_are_stretched_and_nan_counts_as_zero():
    image = decode_image(as_tiff(np.array([[-1.0, 0.0, np.nan, 1.0]], np.float32)))
    assert image.pixels[0, :, 1].tolist() == [0, 127, 127, 255]


def test_a_limit_itself_is_within_the_limit(tmp_path):
    content = encoded()
    (tmp_path / "image.png").write_bytes(content)
    exact = DecodeLimits(len(content), 1200, 40 / 30, max_side=40)
    decode_image(content, exact)
    assert read_file(tmp_path / "image.png", exact).content == content
    for limits in (
        dataclasses.replace(exact, max_bytes=len(content) - 1),
        dataclasses.replace(exact, max_pixels=1199),
        dataclasses.replace(exact, max_aspect_ratio=1.33),
        dataclasses.replace(exact, max_side=39),
    ):
        with pytest.raises(ImageError):
            decode_image(content, limits)
    with pytest.raises(ImageError, match="more than"):
        read_file(tmp_path / "image.png", dataclasses.replace(exact, max_bytes=len(content) - 1))


def test_photo_grey_levels_are_the_stored_brightness():
    content = photo((160, 120))
    stored = Image.open(io.BytesIO(content))
    stored.draft("L", None)
    found = decode_grey(content, DecodeLimits())
    assert found.levels.tobytes() == stored.tobytes()
    assert (found.mode, found.format) == ("RGB", "JPEG")


@pytest.mark.parametrize("side", [None, 40])
@pytest.mark.parametrize(("orientation", "size"), [(1, (1600, 1201)), (6, (1201, 1600))])
def test_size_is_that_of_whole_upright_image(side, orientation, size):
    """This also holds for a photo that is decoded at a fraction of its size."""
    image = Image.new("RGB", (1600, 1201))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    decoded = decode_image(buffer.getvalue(), short_side=side)
    assert decoded.size == size
    assert decoded.width < decoded.height if orientation == 6 else decoded.width > decoded.height
