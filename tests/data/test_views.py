import numpy as np
import pytest

from rootstock.data.views import FORWARD_PASSES, average_views, cut_views
from tests.bundles import tiny_backbone


def gradient(height, width):
    """Return a picture that gets brighter to the right and towards the bottom."""
    rows, columns = np.mgrid[0:height, 0:width]
    grey = (rows / height + columns / width) * 127
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("views", list(FORWARD_PASSES))
@pytest.mark.parametrize("shape", [(80, 200), (64, 64), (20, 31)])
def test_every_view_has_the_input_size(views, shape):
    preprocess = tiny_backbone().card.preprocess()
    found = cut_views(preprocess, gradient(*shape), views)
    assert found.shape == (FORWARD_PASSES[views], preprocess.input_size, preprocess.input_size, 3)
    np.testing.assert_array_equal(found[0], preprocess.fit(gradient(*shape)))


@pytest.mark.parametrize("geometry", ["pad", "squash"])
def test_crops_of_a_whole_image_are_its_corners(geometry):
    preprocess = tiny_backbone().card.preprocess(geometry=geometry)
    size, pixels = preprocess.input_size, gradient(100, 300)
    larger = preprocess.with_size(round(size * 1.15)).fit(pixels)
    views = cut_views(preprocess, pixels, "crops")
    np.testing.assert_array_equal(views[0], preprocess.fit(pixels))
    np.testing.assert_array_equal(views[1], larger[:size, :size])
    np.testing.assert_array_equal(views[4], larger[-size:, -size:])


def test_crops_are_the_corners():
    centre, *corners = cut_views(tiny_backbone().card.preprocess(), gradient(100, 150), "crops")
    means = [corner.mean() for corner in corners]
    assert means[0] < min(means[1:3])
    assert max(means[1:3]) < means[3]
    assert means[0] < centre.mean() < means[3]


def test_logits_are_averaged_image_by_image():
    logits = np.array([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0], [7.0, 5.0]])
    np.testing.assert_array_equal(average_views(logits, "flip"), [[2.0, 1.0], [6.0, 5.0]])


def test_mirror_image_and_corners_are_those_of_pixels():
    preprocess = tiny_backbone().card.preprocess()
    size = preprocess.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    centre, mirrored = cut_views(preprocess, pixels, "flip")
    np.testing.assert_array_equal(mirrored, centre[:, ::-1])
    larger = preprocess.resize(pixels, round(size * 1.15))  # its crop is of .9, so this is more
    _, *corners = cut_views(preprocess, pixels, "crops")
    expected = [
        larger[rows, columns]
        for rows in (slice(None, size), slice(-size, None))
        for columns in (slice(None, size), slice(-size, None))
    ]
    for corner, part in zip(corners, expected, strict=True):
        np.testing.assert_array_equal(corner, part)
