"""The Predictor gives calibrated, ordered answers, and an error per unusable image."""

import json
import shutil

import numpy as np
import pytest

from rootstock.data.limits import DecodeLimits
from rootstock.errors import BundleError, ImageError
from rootstock.model.bundle import read_bundle
from rootstock.model.predictor import Predictor
from rootstock.runtimes.onnx import onnx_session
from rootstock.service.settings import Settings
from tests.bundles import CLASSES, SIZE, jpeg, tiny_bundle, tiny_network, write_tiny_bundle
from tests.model.test_bundle import change


@pytest.fixture(scope="module")
def predictor():
    return Predictor(tiny_bundle(), engine="onnx", threads=1)


def prepared(n):
    return np.random.default_rng(0).normal(size=(n, 3, SIZE, SIZE)).astype(np.float32)


def test_probabilities_sum_to_one_and_fall(predictor):
    [answer] = predictor.predict([jpeg(0)], top_k=3)
    shares = [one.probability for one in answer.top]
    assert sum(shares) == pytest.approx(1, abs=1e-6)
    assert shares == sorted(shares, reverse=True)
    assert (answer.label, answer.probability) == (answer.top[0].label, answer.top[0].probability)
    assert {one.label for one in answer.top} == set(CLASSES)


def test_the_temperature_divides_the_logits(predictor):
    images = prepared(4)
    scaled = np.exp(predictor.outputs(images) / 1.5)
    expected = scaled / scaled.sum(axis=1, keepdims=True)
    found = predictor.infer_normalised(images).decisions
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("n", [0, 1, 3, 17])
def test_any_batch_size_gives_one_row_an_image(predictor, n):
    logits = predictor.outputs(prepared(n))
    assert logits.shape == (n, 3)
    assert logits.dtype == np.float32


def test_image_has_same_answer_in_any_batch(predictor):
    contents = [jpeg(seed) for seed in range(20)]
    together = predictor.predict(contents, top_k=3)
    for content, answer in zip(contents, together, strict=True):
        alone = predictor.predict([content], top_k=3)[0]
        assert alone.label == answer.label
        assert alone.probability == pytest.approx(answer.probability, abs=1e-5)


def test_bad_images_are_errors_in_their_places(predictor):
    good, empty, text, cut = predictor.predict([jpeg(0), b"", b"hello, world", jpeg(1)[:900]])
    assert good == predictor.predict([jpeg(0)])[0]
    assert [bad.error.reason for bad in (empty, text, cut)] == [
        "empty",
        "not-an-image",
        "truncated",
    ]


def test_only_bad_images_are_only_errors(predictor):
    assert all(answer.error for answer in predictor.predict([b"", b"x"]))


def test_no_images_give_no_answers(predictor):
    assert predictor.predict([]) == []


def test_top_k_is_cut_at_number_of_classes(predictor):
    assert len(predictor.predict([jpeg(0)], top_k=99)[0].top) == 3


def test_top_k_below_one_is_rejected(predictor):
    with pytest.raises(ValueError, match="top_k must be 1 or more, got 0"):
        predictor.predict([jpeg(0)], top_k=0)


def test_limits_of_the_caller_count(predictor):
    strict = Predictor(tiny_bundle(), limits=DecodeLimits(max_pixels=1_000))
    assert strict.predict([jpeg(0)])[0].error.reason == "too-many-pixels"


def test_limits_of_training_are_those_of_model(tmp_path):
    whole = jpeg(0)
    strict = write_tiny_bundle(tmp_path / "strict", limits=DecodeLimits(max_pixels=6_400))
    assert Predictor(strict.directory).predict([whole])[0].error is None
    (tmp_path / "small").mkdir()
    small = DecodeLimits(max_pixels=6_000, truncated="use")
    golden = [("cut.jpg", whole[:-2], CLASSES[0])]
    with pytest.raises(ImageError, match="more than the limit of 6,000"):
        write_tiny_bundle(tmp_path / "small", limits=small, golden=golden)
    use = write_tiny_bundle(tmp_path / "use", limits=DecodeLimits(truncated="use"), golden=golden)
    answers = Predictor(use.directory).predict([whole, whole[:-2]])
    assert [answer.error for answer in answers] == [None, None]


def test_service_keeps_models_limits_unless_told_otherwise():
    own = DecodeLimits(max_bytes=5_000, max_pixels=300_000_000, truncated="use")
    assert Settings().limits(own) == own
    told = Settings(max_pixels=1_000, truncated="refuse", max_side=90).limits(own)
    assert told == DecodeLimits(5_000, 1_000, max_side=90)
    assert Settings(max_body_bytes=2_000).limits(own).max_bytes == 2_000


def test_torch_and_onnx_agree(predictor):
    images = prepared(3)
    other = Predictor(tiny_bundle(), engine="torch")
    np.testing.assert_allclose(other.outputs(images), predictor.outputs(images), atol=1e-4)
    assert other.check_golden() < 1e-4


def test_bundle_of_early_features_works_in_both_engines(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "early", network=tiny_network("block2"))
    onnx, other = (Predictor(bundle, engine=engine) for engine in ("onnx", "torch"))
    assert bundle.facts.tap == "block2"
    np.testing.assert_allclose(onnx.outputs(prepared(2)), other.outputs(prepared(2)), atol=1e-4)


def test_weights_that_do_not_fit_card_are_rejected(tmp_path):
    folder = shutil.copytree(tiny_bundle(), tmp_path / "model")
    change(folder, "bundle.json", lambda tree: tree.update(tap="block1"))
    with pytest.raises(BundleError, match=r"model\.safetensors does not fit bundle\.json"):
        Predictor(folder, engine="torch")


def test_model_is_named_after_its_directory_and_content(predictor):
    bundle = read_bundle(tiny_bundle())
    assert predictor.info == {
        "name": "tiny",
        "version": bundle.digest[:12],
        "task": "single_label",
        "strategy": "linear_probe",
    }
    assert Predictor(bundle, name="flowers", version="7").info["version"] == "7"


def test_golden_images_are_answered_as_recorded(predictor):
    assert predictor.check_golden() < 1e-4


def test_another_golden_answer_is_rejected(tmp_path):
    folder = shutil.copytree(tiny_bundle(), tmp_path / "model")

    def shift(tree):
        tree["samples"][1]["logits"][2] += 0.1

    change(folder, "golden/golden.json", shift)
    with pytest.raises(BundleError, match=r"golden image 1\.jpg .* differ by 0\.1"):
        Predictor(folder)


def test_an_onnx_file_of_other_classes_is_rejected(tmp_path):
    folder = shutil.copytree(tiny_bundle(), tmp_path / "model")
    golden = json.loads((folder / "golden/golden.json").read_text())
    for sample in golden["samples"]:
        sample["logits"].append(0.0)
        sample["sizes"].append(0.0)
    change(folder, "golden/golden.json", lambda tree: tree.update(golden))
    change(folder, "bundle.json", lambda tree: tree["names"].append("violet"))
    with pytest.raises(BundleError, match=r"model\.onnx gives 3 outputs for the 4 names"):
        Predictor(folder, engine="onnx")


def test_file_that_is_not_onnx_is_named(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(BundleError, match=r"cannot load .*model\.onnx"):
        onnx_session(tmp_path / "model.onnx")


def test_numbers_that_are_not_finite_are_rejected(predictor):
    with pytest.raises(BundleError, match="numbers that are not finite"):
        predictor.outputs(np.full((1, 3, SIZE, SIZE), np.nan, np.float32))


def test_views_are_averaged_without_changing_golden_images(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "model", views="flip")
    predictor = Predictor(bundle)
    views = predictor.prepare(jpeg(1))
    assert views.shape[0] == 2
    np.testing.assert_array_equal(views[1], views[0][:, ::-1])
    inputs = bundle.preprocess.normalise(views)
    [answer] = predictor.predict([jpeg(1)])
    logits = predictor.outputs(inputs).mean(axis=0) / bundle.facts.calibration["temperature"]
    expected = np.exp(logits) / np.exp(logits).sum()
    assert answer.probability == pytest.approx(expected.max(), rel=1e-4)
    assert predictor.check_golden() < 1e-3


@pytest.mark.parametrize(
    ("engine", "gpu", "most"),
    [("onnx", False, 8), ("onnx", True, 8), ("torch", False, 8), ("torch", True, 64)],
)
def test_only_a_gpu_is_asked_for_large_batches(monkeypatch, engine, gpu, most):
    predictor = Predictor(tiny_bundle(), engine=engine)
    tried = []

    def note(forward, size, *, views, max_images):
        tried.append((size, views, max_images))
        return 3

    monkeypatch.setattr("rootstock.model.predictor.has_gpu", lambda: gpu)
    monkeypatch.setattr("rootstock.model.predictor.best_batch", note)
    assert [predictor.best_batch, predictor.best_batch] == [3, 3]
    assert tried == [(64, 1, most)]
