"""Copies count as one picture after any change of the file; other shots of a scene do not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from rootstock.data.candidates import TURNS, Pairs, turn
from rootstock.data.likeness import Likeness
from rootstock.data.limits import DecodeLimits
from tests.data.folders import photo

SIDE = 160


def shot(seed, *, noise=4.0, scratch=False, colour=(150, 150, 150)):
    """Return a part under a fixed camera, with the noise of this shot."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (SIDE, SIDE), (90, 95, 100))
    draw = ImageDraw.Draw(image)
    draw.rectangle((30, 50, 130, 140), fill=colour, outline=(40, 40, 40), width=4)
    draw.ellipse((60, 70, 80, 90), fill=(30, 30, 30))
    if scratch:
        x, y = random.integers(50, 110, 2).tolist()
        draw.line((x, y, x + 14, y + 6), fill=(250, 250, 250), width=3)
    pixels = np.asarray(image) + random.normal(0, noise, (SIDE, SIDE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def picture(seed, side=SIDE):
    return Image.open(io.BytesIO(photo(seed, side=side))).convert("RGB")


@pytest.fixture
def one_picture(tmp_path):
    def compare(first, second, way=0):
        paths = []
        for number, (image, options) in enumerate((first, second)):
            paths.append(f"{tmp_path}/{number}")
            image.save(paths[-1], **(options or {"format": "PNG"}))
        sides = [min(image.size) for image, _ in (first, second)]
        pair = Pairs(np.array([0]), np.array([1]), np.array([way]), np.zeros(1, np.float32))
        return bool(Likeness(paths, sides, DecodeLimits())(pair)[0])

    return compare


@pytest.mark.parametrize("quality", [95, 70, 50, 30])
@pytest.mark.parametrize("source", [shot(1), picture(1)])
def test_a_compressed_copy_is_one_picture(one_picture, source, quality):
    assert one_picture((source, None), (source, {"format": "JPEG", "quality": quality}))


@pytest.mark.parametrize("side", [130, 100, 64, 40])
def test_a_smaller_copy_is_one_picture(one_picture, side):
    source = picture(2, side=200)
    copy = source.resize((side, side), Image.Resampling.BICUBIC)
    assert one_picture((source, None), (copy, {"format": "JPEG", "quality": 80}))


@pytest.mark.parametrize("way", TURNS)
def test_turned_copy_matches_only_when_turned_back(one_picture, way):
    source = picture(3)
    turned = Image.fromarray(
        np.ascontiguousarray(turn(np.asarray(source.convert("L"))[None], way)[0])
    )
    assert one_picture((turned, None), (source, None), way)
    assert not any(one_picture((turned, None), (source, None), w) for w in TURNS if w != way)


@pytest.mark.parametrize("noise", [1.5, 4.0, 8.0])
def test_two_shots_of_one_scene_are_two_pictures(one_picture, noise):
    assert not one_picture((shot(1, noise=noise), None), (shot(2, noise=noise), None))


@pytest.mark.parametrize("noise", [0.0, 4.0])
def test_a_scratch_makes_another_picture(one_picture, noise):
    good, scratched = shot(1, noise=noise), shot(1, noise=noise, scratch=True)
    assert not one_picture((good, None), (scratched, None))


def test_another_colour_of_same_brightness_makes_another_picture(one_picture):
    red, green = (shot(1, noise=0.0, colour=c) for c in ((200, 80, 80), (60, 151, 60)))
    assert not one_picture((red, None), (green, None))
    assert one_picture((red, None), (red.convert("L"), None))


def test_file_that_has_gone_is_not_copy(tmp_path):
    picture(1).save(tmp_path / "a.png")
    paths = [f"{tmp_path}/a.png", f"{tmp_path}/gone.png"]
    pair = Pairs(np.array([0]), np.array([1]), np.array([0]), np.zeros(1, np.float32))
    assert not Likeness(paths, [SIDE, SIDE], DecodeLimits())(pair).any()
