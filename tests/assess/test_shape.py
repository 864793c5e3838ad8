import pytest

from rootstock.assess.profile import GeometryProbe
from rootstock.assess.shape import choose_geometry


def probe(geometry, log_loss, noise=0.05):
    return GeometryProbe(
        geometry=geometry, tap="last", log_loss=log_loss, noise=noise, n_images=300
    )


@pytest.mark.parametrize(
    ("pad", "squash", "chosen"),
    [
        (0.45, 0.45, "crop"),  # within the noise
        (0.39, 0.45, "pad"),
        (0.39, 0.3, "squash"),
        (0.6, 0.7, "crop"),
    ],
)
def test_geometry_must_beat_crop_by_more_than_noise(pad, squash, chosen):
    probes = probe("crop", 0.5, 0.0), probe("pad", pad), probe("squash", squash)
    assert choose_geometry(probes) == chosen


def test_lowest_loss_with_large_noise_does_not_win():
    probes = probe("crop", 0.5, 0.0), probe("pad", 0.3, 0.2), probe("squash", 0.4, 0.01)
    assert choose_geometry(probes) == "squash"


def test_images_that_cannot_be_probed_are_cropped():
    assert choose_geometry(()) == "crop"
