"""Drift of recent images compared with the validation set."""

from dataclasses import replace

import numpy as np
import pytest

from rootstock.metrics import stability_index
from rootstock.model.predictor import Predictor
from rootstock.service.watch.drift import MIN_IMAGES, Drift
from rootstock.tasks.single_label.answer import Candidate, ClassAnswer
from tests.bundles import CLASSES, jpeg, tiny_bundle, write_tiny_bundle
from tests.service.conftest import make_client
from tests.service.requests import post_files


def answers(predictor, novelties, labels):
    for novelty, label in zip(novelties, labels, strict=True):
        yield ClassAnswer(top=(Candidate(label, 1.0),), novelty=float(novelty), unknown=False)


@pytest.fixture
def watched():
    return Predictor(tiny_bundle(), threads=1)


def usual(predictor, n, *, seed=0):
    """Return answers whose distances and classes are drawn from the validation set's."""
    random = np.random.default_rng(seed)
    reference = predictor.bundle.reference
    shares = reference.remembered["shares"]
    return answers(
        predictor,
        random.choice(reference.distances, n),
        random.choice(predictor.names, n, p=shares / shares.sum()),
    )


def test_images_like_validation_do_not_drift(watched):
    drift = Drift(1_000)
    for answer in usual(watched, 1_000):
        drift.note(watched, answer)
    assert max(drift.scores(watched).values()) < 0.1


def test_foreign_images_and_other_classes_do(watched):
    drift = Drift(1_000)
    for answer in answers(watched, np.full(200, 5.0), [CLASSES[0]] * 200):
        drift.note(watched, answer)
    scores = drift.scores(watched)
    assert scores["features"] > 0.25
    assert scores["classes"] > 0.25
    assert drift.report(watched)["predicted"] == {CLASSES[0]: 1.0}


def test_few_images_give_no_score_and_old_ones_expire(watched):
    drift = Drift(MIN_IMAGES)
    for answer in answers(watched, np.full(MIN_IMAGES - 1, 5.0), [CLASSES[0]] * (MIN_IMAGES - 1)):
        drift.note(watched, answer)
    assert drift.scores(watched) == {}
    for answer in usual(watched, 5 * MIN_IMAGES):
        drift.note(watched, answer)
    assert drift.scores(watched)["features"] < 0.6


def test_a_new_model_starts_again_from_none(watched, tmp_path):
    drift = Drift(1_000)
    for answer in usual(watched, 100):
        drift.note(watched, answer)
    other = Predictor(
        write_tiny_bundle(tmp_path / "other", with_reference=True, calibration={"temperature": 3.0})
    )
    drift.note(other, next(usual(other, 1)))
    assert drift.report(other)["images"] == 1


def test_the_index_is_that_of_the_formula():
    found, expected = np.array([0.7, 0.3]), np.array([0.5, 0.5])
    assert stability_index(found, expected) == pytest.approx(0.2 * np.log(1.4) - 0.2 * np.log(0.6))
    assert stability_index(expected, expected) == 0


def test_route_and_metric_show_the_drift():
    with make_client() as client:
        empty = client.get("/v1/drift").json()
        for _ in range(-(-MIN_IMAGES // 50)):
            post_files(client, *((str(n), jpeg(0)) for n in range(50)))
        full = client.get("/v1/drift").json()
        metrics = client.get("/metrics").text
    assert (empty["images"], empty["psi"], empty["median_novelty"]) == (0, {}, None)
    assert full["psi"]["features"] > 0.25
    assert 'rootstock_drift_psi{what="features"}' in metrics


def test_the_accuracy_is_estimated_unless_images_drift(watched):
    drift = Drift(1_000)
    for answer in usual(watched, 1_000):
        drift.note(watched, replace(answer, top=(Candidate(answer.label, 0.95),)))
    found = drift.report(watched)["estimated_accuracy"]
    assert found["value"] == pytest.approx(0.95)
    assert found["low"] < 0.95 < found["high"]
    for answer in answers(watched, np.full(1_000, 5.0), [CLASSES[0]] * 1_000):
        drift.note(watched, answer)
    assert drift.estimate(watched).value is None
    assert "features" in drift.estimate(watched).reason
