from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rootstock.data.preprocess import Preprocess
from rootstock.errors import BackboneError

STANDARD = Preprocess(64, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bicubic", 0.875)


def pixels(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(64, 64), (30, 500), (500, 30), (1, 1), (3000, 40), (73, 73)])
def test_any_image_becomes_a_square_input(size):
    found = STANDARD.apply(pixels(*size))
    assert found.shape == (3, 64, 64)
    assert found.dtype == np.float32


def test_normalisation_is_by_channel():
    grey = np.full((80, 80, 3), 255, np.uint8)
    np.testing.assert_allclose(STANDARD.apply(grey)[:, 5, 5], [2.5, 2.0, 1.75], rtol=1e-5)


def test_one_image_and_a_batch_give_the_same():
    images = np.stack([STANDARD.fit(pixels(90, 70)), STANDARD.fit(pixels(70, 90))])
    batch = STANDARD.normalise(images)
    assert (batch[0] == STANDARD.apply(pixels(90, 70))).all()


def test_the_golden_picture_has_not_changed():
    ramp = np.add.outer(np.arange(90), np.arange(120)).astype(np.uint8)
    found = STANDARD.fit(np.stack([ramp, ramp[::-1], 255 - ramp], axis=2))
    assert found[0, 0].tolist() == [25, 104, 230]
    assert found[40, 20].tolist() == [99, 80, 156]


def test_very_long_image_costs_only_its_middle():
    long = pixels(20, 2000)
    assert (STANDARD.apply(long) == STANDARD.apply(long[:, 960:1040])).mean() > 0.9


def test_the_hash_knows_every_field():
    others = [
        STANDARD.with_size(32),
        Preprocess(64, (0.5, 0.4, 0.31), STANDARD.std, "bicubic", 0.875),
        Preprocess(64, STANDARD.mean, STANDARD.std, "bilinear", 0.875),
        Preprocess(64, STANDARD.mean, STANDARD.std, "bicubic", 1.0),
        replace(STANDARD, geometry="pad"),
        replace(STANDARD, geometry="squash"),
    ]
    assert len({STANDARD.hash, *(other.hash for other in others)}) == 7
    assert Preprocess.from_dict(STANDARD.to_dict()).hash == STANDARD.hash


@pytest.mark.parametrize("change", [{"crop_pct": 0.0}, {"std": (0.0, 1.0, 1.0)}, {"input_size": 0}])
def test_impossible_values_are_rejected(change):
    with pytest.raises(BackboneError, match="is out of bounds"):
        Preprocess.from_dict(STANDARD.to_dict() | change)


def test_a_picture_is_cut_in_its_middle():
    ramp = np.add.outer(np.zeros(64, int), np.arange(201)).astype(np.uint8)
    whole = Preprocess(64, (0.5,) * 3, (0.5,) * 3, "bicubic", 1.0)
    found = whole.fit(np.stack([ramp] * 3, axis=2))
    assert found[0, :, 0].tolist() == list(range(68, 132))  # (201 - 64) // 2
    found = whole.fit(np.stack([ramp.T] * 3, axis=2))
    assert found[:, 0, 0].tolist() == list(range(68, 132))


def test_long_picture_is_cropped_before_resizing():
    ramp = np.add.outer(np.zeros(20, int), np.arange(200)).astype(np.uint8)
    found = STANDARD.resize(np.stack([ramp] * 3, axis=2), 20)
    assert found.shape == (20, 60, 3)
    assert found[0, :, 0].tolist() == list(range(70, 130))
    assert STANDARD.resize(np.stack([ramp[:, :60]] * 3, axis=2), 10).shape == (10, 30, 3)
    assert STANDARD.resize(np.stack([ramp[:, :60].T] * 3, axis=2), 10).shape == (30, 10, 3)


CUT_FIRST = replace(STANDARD, cut_first=True)


@pytest.mark.parametrize(
    "size", [(375, 500), (500, 333), (90, 120), (64, 64), (73, 111), (30, 500), (3000, 40), (1, 1)]
)
def test_cutting_before_resizing_gives_the_same_picture(size):
    smooth = Image.fromarray(pixels(9, 11)).resize(size[::-1], Image.Resampling.BICUBIC)
    image = np.asarray(smooth)
    whole, cut = (np.int16(each.fit(image)) for each in (STANDARD, CUT_FIRST))
    assert cut.shape == (64, 64, 3)
    # The filter's weights are rounded in another place.
    assert np.abs(whole - cut).max() <= 2
    assert (whole != cut).mean() < 0.05


def test_cutting_before_resizing_is_part_of_the_hash():
    assert CUT_FIRST.hash != STANDARD.hash
    assert "cut_first" not in STANDARD.to_dict()
    assert Preprocess.from_dict(CUT_FIRST.to_dict()) == CUT_FIRST


def test_scaled_decoding_keeps_twice_the_resized_side():
    assert STANDARD.decoded_side is None
    scaled = Preprocess(64, (0.5,) * 3, (0.5,) * 3, "bicubic", 0.875, scaled=True)
    assert scaled.decoded_side == 2 * 73
    assert scaled.hash != STANDARD.hash
    assert Preprocess.from_dict(scaled.to_dict()) == scaled
    assert "scaled" not in STANDARD.to_dict()


@pytest.mark.parametrize("change", [{"crop_pct": 1.1}, {"std": (1.0, -1.0, 1.0)}])
def test_values_out_of_bounds_are_rejected(change):
    with pytest.raises(BackboneError, match="is out of bounds"):
        Preprocess.from_dict(STANDARD.to_dict() | change)
    with pytest.raises(BackboneError, match="'nearest' is not one of bilinear, bicubic"):
        Preprocess.from_dict(STANDARD.to_dict() | {"interpolation": "nearest"})


def test_the_smallest_and_the_largest_values_are_taken():
    least = Preprocess(1, (0.0,) * 3, (1e-6,) * 3, "bilinear", 1.0)
    assert least.apply(pixels(3, 3)).shape == (3, 1, 1)


def test_padded_image_is_whole_and_rest_has_mean():
    padded = replace(STANDARD, geometry="pad")
    wide = np.zeros((20, 80, 3), np.uint8)
    found = padded.fit(wide)
    assert (found[24:40] == 0).all()  # 16 of 64 rows, in the middle
    assert found[0, 0].tolist() == [128, 102, 76]
    assert np.abs(padded.apply(wide)[:, 0]).max() < 0.02  # next to nothing, once normalised
    np.testing.assert_array_equal(padded.fit(wide.transpose(1, 0, 2)), found.transpose(1, 0, 2))


def test_a_squashed_image_keeps_both_ends():
    ramp = np.repeat(np.linspace(0, 255, 200)[None, :, None], 50, axis=0).repeat(3, axis=2)
    found = replace(STANDARD, geometry="squash").fit(ramp.astype(np.uint8))
    assert found[0, 0].max() < 8
    assert found[0, -1].min() > 247


@pytest.mark.parametrize("geometry", ["pad", "squash"])
@pytest.mark.parametrize("size", [(64, 64), (30, 500), (500, 3), (1, 1), (3000, 40)])
def test_any_image_fits_in_any_geometry(geometry, size):
    other = replace(STANDARD, geometry=geometry)
    assert other.fit(pixels(*size)).shape == (64, 64, 3)
    assert replace(other, scaled=True).decoded_side == 128


def test_old_model_fields_crop_and_keep_hash():
    fields = STANDARD.to_dict()
    assert "geometry" not in fields
    assert Preprocess.from_dict(fields).geometry == "crop"
    assert Preprocess.from_dict(replace(STANDARD, geometry="pad").to_dict()).geometry == "pad"
    with pytest.raises(BackboneError, match="'stretch' is not one of crop, pad, squash"):
        Preprocess.from_dict(fields | {"geometry": "stretch"})
