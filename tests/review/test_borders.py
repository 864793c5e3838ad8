import numpy as np
import pytest

from rootstock.features import loading
from rootstock.review import borders
from rootstock.review.borders import Borders
from tests.data.folders import write_classes
from tests.data.test_broken_folders import index


@pytest.fixture
def data(tmp_path):
    root = write_classes(tmp_path / "images", {"a": 4, "b": 4})
    return index(root, val_fraction=0.0, test_fraction=0.0).rows(), root


def test_images_that_were_noted_are_not_decoded_again(data, monkeypatch):
    rows, root = data
    expected = Borders(rows).read(root)
    noted = Borders(rows)
    for row in rows[:7]:
        noted.note(row, loading.read_pixels(row, root))
    decoded = []

    def note(row, *arguments, real=loading.read_pixels, **options):
        decoded.append(row)
        return real(row, *arguments, **options)

    monkeypatch.setattr(borders, "read_pixels", note)
    np.testing.assert_array_equal(noted.read(root), expected)
    assert decoded == rows[7:]


def test_image_decoded_at_smaller_size_does_not_count(data):
    rows, root = data
    noted = Borders(rows)
    for row in rows:
        noted.note(row, np.zeros((24, 24, 3), np.uint8))
    np.testing.assert_array_equal(noted.read(root), Borders(rows).read(root))
