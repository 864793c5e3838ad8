"""The int8 twin: kept if it loses nothing, and used only if it answers as it did in training."""

import json
import shutil

import numpy as np
import onnx
import pytest

from rootstock.errors import BundleError
from rootstock.model import engine as engines
from rootstock.model.bundle import read_bundle
from rootstock.model.engine import Way
from rootstock.model.predictor import Predictor, golden_tolerance
from rootstock.model.twin import Twin, TwinFacts, describe_twin, judge_twin
from rootstock.tasks.regression.task import Regression
from rootstock.tasks.single_label.task import SingleLabel
from rootstock.tasks.targets import Targets
from tests.bundles import CLASSES, jpeg, tiny_bundle, twin_bundle, write_tiny_bundle

PLAIN = {"temperature": 1.0}


def measure(labels, sureness=4.0, wrong=()):
    """Outputs of a model that is right about all images but the ``wrong`` ones."""
    said = np.array(labels)
    said[list(wrong)] = (said[list(wrong)] + 1) % 3
    return np.eye(3, dtype=np.float32)[said] * sureness


def judge(exact, twin, labels, max_loss=0.003):
    targets = Targets(np.array(labels), tuple(CLASSES), np.array(labels))
    return judge_twin(exact, twin, SingleLabel(), targets, PLAIN, max_loss=max_loss)


LABELS = list(np.arange(400) % 3)


def near_the_border(labels, images, lost, won=()):
    """Outputs of both for images that float32 is unsure of: ``images``, of which int8 loses some.

    ``lost`` are answered wrongly in int8 only, ``won`` in float32 only.
    """
    exact, twin = measure(labels), measure(labels)
    for outputs, wrong in ((exact, won), (twin, lost)):
        for row in images:
            right, other = labels[row], (labels[row] + 1) % 3
            outputs[row] = 0
            outputs[row, [right, other]] = (0.98, 1.02) if row in wrong else (1.02, 0.98)
    return exact, twin


def test_a_score_that_falls_beyond_chance_is_rejected():
    exact, twin = near_the_border(LABELS, range(20), lost=range(12))
    facts = judge(exact, twin, LABELS)
    assert not facts.kept
    assert facts.reason == "accuracy falls by 0.0300, beyond chance by more than 0.0030"
    assert facts.figures.agreement == 0.97
    assert facts.figures.score_interval[1] < -0.003
    assert facts.figures.loss_interval[1] < 0.003  # only the answers show it
    assert judge(exact, twin, LABELS, max_loss=0.02).kept


def test_a_few_answers_near_the_border_are_chance():
    """Four images lost and two won fall by more than the limit, but not beyond chance."""
    few = LABELS[:180]
    exact, twin = near_the_border(few, range(20), lost=[1, 2, 3, 4], won=[5, 6])
    facts = judge(exact, twin, few)
    assert facts.kept
    assert facts.figures.score < facts.figures.score_float32 - 0.01
    low, high = facts.figures.score_interval
    assert low < -0.003 < high


def test_few_images_do_not_hide_a_loss():
    """Chance explains three wrong answers of 40, but the loss may be large."""
    few = LABELS[:40]
    lost = measure(few, wrong=[0, 1, 2])
    facts = judge(measure(few), lost, few)
    assert not facts.kept
    assert "40 validation images do not exclude a rise of more than 0.0200" in facts.reason
    exact = measure(LABELS, sureness=1.5)
    noise = np.random.default_rng(0).normal(0, 0.1, exact.shape).astype(np.float32)
    assert judge(exact, exact + noise, LABELS).kept
    unsure = judge(exact[:40], exact[:40] + noise[:40], few)
    assert not unsure.kept
    assert unsure.figures.loss_interval[0] <= 0.003  # the rise can be chance
    same = judge(measure(few), measure(few, sureness=4.01), few)
    assert same.kept  # few images are enough if the answers hardly change


def test_a_loss_that_rises_beyond_chance_is_rejected():
    facts = judge(measure(LABELS), measure(LABELS, sureness=3.5), LABELS)
    assert not facts.kept
    assert "beyond chance" in facts.reason
    noisy = measure(LABELS)
    noise = np.random.default_rng(0).normal(0, 0.3, noisy.shape)
    facts = judge(measure(LABELS), noisy + noise, LABELS)
    assert facts.kept
    assert 0 < facts.figures.loss_interval[0] < 0.003


def test_outputs_that_are_not_numbers_are_rejected():
    broken = measure(LABELS)
    broken[7, 1] = np.nan
    facts = judge(measure(LABELS), broken, LABELS)
    assert (facts.kept, facts.figures) == (False, None)


def test_numbers_are_judged_by_their_own_score():
    values = np.linspace(0, 1, 50, dtype=np.float32)[:, None]
    task, units = Regression(), np.array([[0.5], [0.3]])
    targets = Targets(values, ("size",), np.zeros(50, int), units=units)
    outputs = ((values - 0.5) / 0.3).astype(np.float32)
    exact = outputs + 0.1 * np.sin(np.arange(50))[:, None].astype(np.float32)
    calibration = task.calibrate(exact, targets)
    off = exact + 0.3
    same = judge_twin(exact, exact, task, targets, calibration, max_loss=0.003)
    worse = judge_twin(exact, off, task, targets, calibration, max_loss=0.003)
    assert (same.kept, same.figures.agreement) == (True, None)
    assert not worse.kept
    assert worse.reason.startswith("R² falls by")


def test_a_model_runs_in_either_precision():
    exact, twin = (Predictor(twin_bundle(), precision=one) for one in ("float32", "int8"))
    assert (exact.way, twin.way) == (Way("onnx"), Way("onnx", "int8"))
    assert twin.golden_difference <= golden_tolerance(twin.bundle, "int8")
    images = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    assert 0 < np.abs(exact.outputs(images) - twin.outputs(images)).max() < 1
    answers = twin.predict([jpeg(1)])
    assert answers[0].label in CLASSES
    assert answers[0].novelty is not None


def test_unknown_images_use_the_twin_s_features():
    """The tiny network differs much in int8: most images would be unknown by float32's limit."""
    twin, exact = (Predictor(twin_bundle(), precision=one) for one in ("int8", "float32"))
    assert not np.array_equal(twin.reference.distances, exact.reference.distances)
    assert np.array_equal(twin.reference.features, exact.reference.features)
    seen = twin.infer([twin.prepare(jpeg(seed)) for seed in range(240, 280)])
    assert twin.are_unknown(seen.features).mean() <= twin.bundle.facts.unknown_share


@pytest.mark.parametrize(
    ("seconds", "precision"), [(0.5, "int8"), (0.99, "float32"), (2, "float32")]
)
def test_twin_is_taken_only_for_clear_lead(monkeypatch, seconds, precision):
    monkeypatch.setattr(engines, "has_gpu", lambda: False)
    monkeypatch.setattr(
        engines,
        "time_in_turns",
        lambda ways, **_: {way: seconds if way.precision == "int8" else 1.0 for way in ways},
    )
    predictor = Predictor(twin_bundle(), engine="onnx", precision="auto")
    assert predictor.precision == precision
    assert predictor.milliseconds == {"onnx": 1000.0, "onnx-int8": 1000.0 * seconds}


def test_a_twin_with_other_answers_is_ignored(monkeypatch, tmp_path):
    monkeypatch.setattr(engines, "has_gpu", lambda: False)
    bundle = read_bundle(twin_bundle())
    right = engines.open_engine

    def overflowing(bundle, way, *, threads=None):
        forward = right(bundle, way, threads=threads)
        if way.precision == "float32":
            return forward
        return lambda images, **_: forward(images)._replace(logits=forward(images).logits * 3 + 9)

    monkeypatch.setattr("rootstock.model.predictor._proved", {})
    monkeypatch.setattr(engines, "open_engine", overflowing)
    monkeypatch.setattr("rootstock.model.predictor.open_engine", overflowing)
    assert Predictor(bundle, engine="onnx", precision="auto").precision == "float32"
    with pytest.raises(BundleError, match="golden image .* differ by"):
        Predictor(bundle, precision="int8")


def test_int8_is_an_error_without_a_twin(tmp_path):
    with pytest.raises(BundleError, match="has no int8 twin"):
        Predictor(tiny_bundle(), precision="int8")
    with pytest.raises(BundleError, match="does not run int8"):
        Predictor(twin_bundle(), engine="torch", precision="int8")
    assert Predictor(tiny_bundle(), precision="auto").precision == "float32"
    refused = write_tiny_bundle(
        tmp_path / "refused",
        make_twin=lambda *_: Twin(TwinFacts(kept=False, reason="it is too coarse")),
    )
    with pytest.raises(BundleError, match="no int8 twin: it is too coarse"):
        Predictor(refused, precision="int8")
    assert not refused.twin_path.exists()


def test_twin_that_is_missing_or_changed_is_rejected(tmp_path):
    folder = shutil.copytree(twin_bundle(), tmp_path / "model")
    content = (folder / "model.int8.onnx").read_bytes()
    (folder / "model.int8.onnx").write_bytes(content[:-1] + b"x")
    with pytest.raises(BundleError, match="int8.onnx is damaged"):
        read_bundle(folder)
    (folder / "model.int8.onnx").unlink()
    sums = json.loads((folder / "checksums.json").read_text())
    del sums["model.int8.onnx"]
    (folder / "checksums.json").write_text(json.dumps(sums))
    with pytest.raises(BundleError, match=r"no checksum of model\.int8\.onnx"):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_a_bundles_networks_say_what_they_are(name):
    said = {p.key: p.value for p in onnx.load(str(twin_bundle() / name)).metadata_props}
    assert json.loads(said["names"]) == CLASSES
    assert float(said["temperature"]) == 1.5
    assert said["use"].startswith("Decode the image")


def test_a_card_says_what_was_measured():
    assert describe_twin(None) == ""
    kept = judge(measure(LABELS, wrong=[0]), measure(LABELS, wrong=[0]), LABELS)
    assert "0.9975 in int8 and 0.9975 in float32 on the 400" in describe_twin(kept)
    refused = judge(*near_the_border(LABELS, range(20), lost=range(12)), LABELS)
    assert "refused: accuracy falls by" in describe_twin(refused)
    assert describe_twin(TwinFacts(kept=False, reason="odd")).endswith("no int8 twin: odd.")
