import numpy as np
import pytest

from rootstock.evaluate.without_labels import estimate_accuracy

FREEDOM = {"features": 9, "classes": 9}


def estimate(confidences, drift=None, n_validation=1_000):
    return estimate_accuracy(confidences, drift or {}, FREEDOM, n_validation)


def test_mean_confidence_is_accuracy_of_calibrated_model():
    random = np.random.default_rng(0)
    confidences = random.uniform(0.6, 1.0, 2_000)
    right = random.random(2_000) < confidences
    found = estimate(confidences)
    assert found.low < right.mean() < found.high
    assert found.value == pytest.approx(right.mean(), abs=0.03)


def test_fewer_images_make_the_interval_wider():
    few, many = (estimate(np.full(n, 0.9)) for n in (100, 1_000))
    assert few.high - few.low > many.high - many.low


@pytest.mark.parametrize("what", ["features", "classes"])
def test_drift_prevents_an_estimate(what):
    found = estimate(np.full(500, 0.9), {what: 0.6})
    assert found.value is None
    assert what in found.reason


def test_drift_within_chance_allows_an_estimate():
    confidences = np.full(60, 0.95)
    assert estimate(confidences, {"features": 0.4}).value is not None
    assert estimate(np.full(2_000, 0.95), {"features": 0.4}).value is None


def test_too_few_images_prevent_an_estimate():
    assert "fewer than 50" in estimate(np.full(49, 0.9)).reason
    assert "validation images" in estimate(np.full(500, 0.7), n_validation=20).reason


def test_a_task_without_confidence_says_so():
    assert "no suitable confidence" in estimate(None).reason
