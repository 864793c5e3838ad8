"""The Python API: every kind of image that people have gets the same answer."""

import io
import json
import pickle

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import rootstock
from rootstock.errors import BundleError, ImageError, RootstockError
from tests.bundles import CLASSES, jpeg, tiny_backbone, tiny_bundle
from tests.data.folders import write_classes


@pytest.fixture(scope="module")
def model():
    return rootstock.load(tiny_bundle())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(1))
    return path


def test_paths_bytes_pictures_and_tables_get_same_answer(model, file):
    content = file.read_bytes()
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    (expected,) = model.predict(content)
    given = [
        str(file),
        file,
        file.parent,
        [content],
        bytearray(content),
        pd.DataFrame({"path": [str(file)]}),
        pd.DataFrame({"image": [content]}),
    ]
    for images in given:
        (answer,) = model.predict(images)
        assert answer.probability == pytest.approx(expected.probability, abs=1e-6)
    # Decoded pixels are not reduced during decoding, unlike a JPEG.
    pixels = np.asarray(picture)
    lossless = [model.predict(images)[0] for images in (picture, pixels, [pixels])]
    assert {answer.label for answer in lossless} == {expected.label}
    assert len({answer.probability for answer in lossless}) == 1


def test_probabilities_are_in_the_order_of_the_classes(model, file):
    assert model.classes_.tolist() == CLASSES
    (answer,) = model.predict(file, top_k=1)
    shares = model.predict_proba([file, file])
    assert shares.shape == (2, len(CLASSES))
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-6)
    assert CLASSES[int(shares[0].argmax())] == answer.label


def test_unusable_input_gets_an_error_in_place(model, file):
    (bad, good) = model.predict([b"nonsense", file])
    assert bad.error.reason == "not-an-image"
    assert good.error is None
    with pytest.raises(ImageError):
        model.predict_proba(b"nonsense")
    with pytest.raises(TypeError, match="int is not an image"):
        model.predict([3])
    with pytest.raises(TypeError, match="uint8, not float64"):
        model.predict(np.zeros((4, 4, 3)))
    with pytest.raises(TypeError, match="no column path or image"):
        model.predict(pd.DataFrame({"file": []}))


def test_a_model_can_be_pickled(model, file):
    again = pickle.loads(pickle.dumps(model))
    assert again.predict(file)[0].label == model.predict(file)[0].label
    assert repr(again) == repr(model)


def test_a_model_that_is_not_there_is_reported(tmp_path):
    with pytest.raises(BundleError, match="there is no model directory"):
        rootstock.load(tmp_path / "none")


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert rootstock.__version__ == version("rootstock-vision")


@pytest.mark.integration
def test_folder_becomes_model_that_can_be_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "insects", {"ants": 24, "bees": 24})
    settings = {
        "backbone.weights": str(tiny_backbone().card.weights),
        "plan.strategy": "linear_probe",
        "search.engine": "sequential",
        "tracking.enabled": False,
        "train.l2_grid": [0.1],
    }
    model = rootstock.train("insects", settings=settings)
    assert model.classes_.tolist() == ["ants", "bees"]
    metrics = model.evaluate("insects")
    recorded = json.loads((tmp_path / "runs/insects/reports/metrics.json").read_text())
    assert set(metrics) >= {"accuracy", "n_test"}
    assert 0 <= recorded["accuracy"] <= 1
    with pytest.raises(RootstockError, match="no such key"):
        rootstock.train("insects", "run2", settings={"plan.nonsense": 1})
