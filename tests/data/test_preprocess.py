import numpy as np
import pytest

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
    images = np.stack([STANDARD.geometry(pixels(90, 70)), STANDARD.geometry(pixels(70, 90))])
    batch = STANDARD.normalise(images)
    assert (batch[0] == STANDARD.apply(pixels(90, 70))).all()


def test_the_golden_picture_has_not_changed():
    ramp = np.add.outer(np.arange(90), np.arange(120)).astype(np.uint8)
    found = STANDARD.geometry(np.stack([ramp, ramp[::-1], 255 - ramp], axis=2))
    assert found[0, 0].tolist() == [25, 104, 230]
    assert found[40, 20].tolist() == [99, 80, 156]


def test_a_very_long_image_costs_no_more_than_its_middle():
    long = pixels(20, 2000)
    assert (STANDARD.apply(long) == STANDARD.apply(long[:, 960:1040])).mean() > 0.9


def test_the_hash_knows_every_field():
    others = [
        STANDARD.with_size(32),
        Preprocess(64, (0.5, 0.4, 0.31), STANDARD.std, "bicubic", 0.875),
        Preprocess(64, STANDARD.mean, STANDARD.std, "bilinear", 0.875),
        Preprocess(64, STANDARD.mean, STANDARD.std, "bicubic", 1.0),
    ]
    assert len({STANDARD.hash, *(other.hash for other in others)}) == 5
    assert Preprocess.from_dict(STANDARD.to_dict()).hash == STANDARD.hash


@pytest.mark.parametrize("change", [{"crop_pct": 0.0}, {"std": (0.0, 1.0, 1.0)}, {"input_size": 0}])
def test_impossible_values_are_refused(change):
    with pytest.raises(BackboneError, match="is out of bounds"):
        Preprocess.from_dict(STANDARD.to_dict() | change)
