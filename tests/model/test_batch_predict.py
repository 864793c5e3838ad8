"""Many images at once get the same answers as each of them separately."""

import numpy as np
import pytest

from rootstock.errors import DataError
from rootstock.model.batch_predict import BATCH_IMAGES, predict_rows
from rootstock.model.predictor import Predictor
from tests.bundles import tiny_bundle
from tests.data.folders import photo, write_classes
from tests.data.test_broken_folders import index


def test_rows_keep_their_order_over_batches(tmp_path):
    root = write_classes(tmp_path, {"a": 20, "b": 20})
    rows, predictor = index(root).rows(), Predictor(tiny_bundle())
    assert len(rows) > BATCH_IMAGES
    found = predict_rows(predictor, rows, root)
    for number in (0, 7, BATCH_IMAGES, len(rows) - 1):
        alone = predictor.infer([predictor.prepare((root / rows[number].path).read_bytes())])
        np.testing.assert_allclose(found[0][number], alone[0][0], atol=1e-5)
        np.testing.assert_allclose(found.features[number], alone.features[0], atol=1e-4)
    assert len(found[0]) == len(found.features) == len(rows)


def test_an_image_that_changed_is_named(tmp_path):
    root = write_classes(tmp_path, {"a": 4, "b": 4})
    rows = index(root).rows()
    (root / rows[2].path).write_bytes(photo(999))
    with pytest.raises(DataError, match=rows[2].path):
        predict_rows(Predictor(tiny_bundle()), rows, root)
