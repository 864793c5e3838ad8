"""How deep greys, floats, and transparency become RGB: for one image, and for a set."""

import io

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from rootstock.data.blank import decide_rendering
from rootstock.data.decode import decode_image
from rootstock.data.inspect import inspect_image
from rootstock.data.limits import DecodeLimits
from rootstock.data.manifest import Manifest
from rootstock.data.preprocess import Preprocess
from rootstock.data.rendering import Rendering, choose_rendering
from tests.data.test_broken_folders import index

RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def deep(low, high):
    """Return a 16-bit PNG whose values rise from low to high."""
    return saved(Image.fromarray((low + RAMP * (high - low)).astype(np.uint16)))


def floats(values, no_data=None):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    if no_data is not None:
        info[42113] = str(no_data)
    return saved(Image.fromarray(values.astype(np.float32)), "TIFF", tiffinfo=info)


def icon(level, shape=None):
    """Return a shape of one grey level on a transparent ground."""
    alpha = (RAMP > 0.5) * 255 if shape is None else shape
    return saved(Image.fromarray(np.dstack([np.full((64, 64), level), alpha]).astype(np.uint8)))


def seen(tmp_path, *contents):
    """Return the index's view of these files."""
    images = []
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(content)
        images.append(inspect_image(path, DecodeLimits()))
    return images


def rendering_of(tmp_path, *contents):
    return choose_rendering((one.mode, one.tones) for one in seen(tmp_path, *contents))


def levels(content, rendering):
    return len(np.unique(decode_image(content, rendering=rendering).pixels))


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1_020), (0, 4_095), (29_000, 31_000), (400, 16_383), (60_000, 60_300)]
)
def test_values_of_few_bits_keep_their_levels(tmp_path, low, high):
    content = deep(low, high)
    rendering = rendering_of(tmp_path, content)
    assert levels(content, rendering) > 200
    assert rendering.deep == pytest.approx((low, high), abs=(high - low) / 200)


def test_values_of_sixteen_bits_keep_their_upper_eight(tmp_path):
    contents = [deep(0, 65_535), deep(0, 900)]
    assert rendering_of(tmp_path, *contents) == Rendering()
    assert decode_image(contents[0]).pixels[-1, -1].tolist() == [255] * 3


def test_one_value_is_the_same_grey_everywhere(tmp_path):
    dark, bright = deep(0, 1_000), deep(0, 4_000)
    rendering = rendering_of(tmp_path, dark, bright)
    assert decode_image(bright, rendering=rendering).pixels.max() == 255
    assert decode_image(dark, rendering=rendering).pixels.max() == pytest.approx(64, abs=1)


def test_single_exception_does_not_set_the_range(tmp_path):
    contents = [deep(0, 1_000 + number) for number in range(150)] + [deep(0, 65_535)]
    assert rendering_of(tmp_path, *contents).deep[1] < 1_200


def test_dead_and_hot_pixels_do_not_set_range(tmp_path):
    values = (RAMP * 1_000).astype(np.uint16)
    values[3, 3], values[9, 9] = 65_535, 64_000
    content = saved(Image.fromarray(values))
    assert rendering_of(tmp_path, content).deep[1] <= 1_000


@pytest.mark.parametrize("no_data", [-9999.0, -3.4028234663852886e38, 1e30])
@pytest.mark.parametrize("named", [True, False])
def test_missing_values_do_not_use_up_float_greys(tmp_path, no_data, named):
    values = 10 + 5 * RAMP
    values[:20] = no_data
    content = floats(values, no_data if named else None)
    rendering = rendering_of(tmp_path, content)
    assert rendering.wide == pytest.approx((11.6, 15), abs=0.1)
    assert levels(content, rendering) > 150
    if named:
        assert decode_image(content, rendering=rendering).pixels[:20].max() == 0


def test_what_is_not_a_number_becomes_black(tmp_path):
    values = 5 + RAMP
    values[0, :2] = np.nan, np.inf
    content = floats(values)
    rendering = rendering_of(tmp_path, content)
    assert decode_image(content, rendering=rendering).pixels[0, :2].max() == 0


def test_a_mask_of_two_values_keeps_both(tmp_path):
    content = floats((RAMP > 0.5) * 1_000.0)
    assert levels(content, rendering_of(tmp_path, content)) == 2


@pytest.mark.parametrize(
    ("grounds", "chosen"),
    [([0], 255), ([255], 128), ([0, 255], 128), ([255, 128], 0), ([0] * 99 + [255], 255)],
)
def test_the_ground_is_one_that_shows_the_shapes(tmp_path, grounds, chosen):
    contents = [icon(level) for level in grounds]
    rendering = rendering_of(tmp_path, *contents)
    assert rendering.ground == chosen
    if len(grounds) < 9:
        assert all(levels(content, rendering) > 1 for content in contents)


def test_image_whose_alpha_hides_nothing_has_no_say(tmp_path):
    opaque = icon(255, np.full((64, 64), 255))
    (image,) = seen(tmp_path, opaque)
    assert image.tones == ()
    assert image.flat


def test_white_shapes_are_not_copies_of_each_other(tmp_path):
    """On white, both would be the same white square."""
    one, other = seen(tmp_path, icon(255), icon(255, (RAMP < 0.2) * 255))
    assert one.thumb != other.thumb


def test_large_image_is_rendered_as_small_one(monkeypatch):
    from rootstock.data import rendering as module

    contents = [deep(0, 900), floats(RAMP - 0.5), icon(9, RAMP * 255)]
    ways = [Rendering(), Rendering(128, (100.0, 800.0), (-0.2, 0.4))]
    whole = [decode_image(one, rendering=way).pixels for one in contents for way in ways]
    monkeypatch.setattr(module, "_BAND_PIXELS", 640)
    bands = [decode_image(one, rendering=way).pixels for one in contents for way in ways]
    assert all((a == b).all() for a, b in zip(whole, bands, strict=True))


@pytest.fixture
def cameras(tmp_path):
    """Return two classes of 10-bit images that get brighter in different directions."""
    for number in range(8):
        for name, values in (("down", RAMP), ("right", RAMP.T)):
            folder = tmp_path / "images" / name
            folder.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng([number, len(name)]).uniform(0, 0.2, (64, 64))
            grey = (900 * (0.8 * values + noise)).astype(np.uint16)
            Image.fromarray(grey).save(folder / f"{number}.png")
    return tmp_path / "images"


def test_the_manifest_holds_the_rendering_and_says_so(cameras, tmp_path):
    manifest = index(cameras)
    assert manifest.rendering.deep[1] == pytest.approx(880, abs=20)
    assert any("16-bit" in warning and "black to white" in warning for warning in manifest.warnings)
    manifest.write(tmp_path / "manifest.parquet")
    assert Manifest.read(tmp_path / "manifest.parquet") == manifest


def test_the_images_of_the_test_do_not_decide(cameras):
    before = index(cameras)
    for row in before.rows("test"):
        (cameras / row.path).write_bytes(deep(0, 60_000))
    table = "path,label,split\n" + "".join(
        f"{row.path},{row.target},{row.split}\n" for row in before.rows()
    )
    (cameras / "labels.csv").write_text(table)
    assert index(cameras / "labels.csv").rendering == before.rendering


def test_ordinary_images_keep_the_hash_of_their_preprocessing():
    plain = Preprocess(224, (0.5,) * 3, (0.5,) * 3, "bicubic", 0.875, scaled=True)
    assert "rendering" not in plain.to_dict()
    other = Preprocess(
        224, (0.5,) * 3, (0.5,) * 3, "bicubic", 0.875, True, Rendering(128, (0.0, 1_020.0))
    )
    assert other.hash != plain.hash
    assert Preprocess.from_dict(other.to_dict()) == other


def test_images_of_one_colour_are_a_finding(tmp_path):
    white = saved(Image.new("RGB", (40, 40), "white"))
    shown = saved(Image.fromarray((RAMP * 255).astype(np.uint8)))
    blank, fine = seen(tmp_path, white, shown)

    def warnings(*images):
        rows = [(f"{number}.png", image) for number, image in enumerate(images)]
        return decide_rendering(rows, ["a"] * len(rows), ["train"] * len(rows))[1]

    assert warnings(*[fine] * 90, *[blank] * 2) == []
    (found,) = warnings(*[fine] * 90, *[blank] * 10)
    assert "10 of 100 images show a single colour" in found
    assert "90.png" in found


def test_a_fine_texture_is_not_one_colour(tmp_path):
    noise = np.random.default_rng(0).integers(100, 130, (400, 400), dtype=np.uint8)
    (image,) = seen(tmp_path, saved(Image.fromarray(noise)))
    assert not image.flat
