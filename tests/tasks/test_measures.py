import numpy as np
import pytest
from sklearn import metrics as reference

from rootstock.tasks.single_label import measures as metrics


@pytest.fixture
def case():
    """Probabilities of four classes, of which class 3 has no image, and the labels."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    logits = random.normal(size=(200, 4)) + 2 * np.eye(4)[labels]
    return metrics.softmax(logits), labels


def test_softmax_is_safe_and_sums_to_one():
    found = metrics.softmax(np.array([[1e4, 0.0], [-1e4, -1e4]]))
    np.testing.assert_allclose(found, [[1, 0], [0.5, 0.5]])


def test_scores_are_those_of_scikit_learn(case):
    probabilities, labels = case
    predicted = np.minimum(probabilities.argmax(axis=1), 2)
    assert metrics.accuracy(predicted, labels) == reference.accuracy_score(labels, predicted)
    assert metrics.balanced_accuracy(predicted, labels, 4) == pytest.approx(
        reference.balanced_accuracy_score(labels, predicted)
    )
    assert metrics.macro_f1(predicted, labels, 4) == pytest.approx(
        reference.f1_score(labels, predicted, average="macro")
    )
    assert metrics.log_loss(probabilities, labels) == pytest.approx(
        reference.log_loss(labels, probabilities, labels=range(4))
    )


def test_the_confusion_matrix_has_actual_rows(case):
    predicted = np.array([0, 1, 1])
    assert metrics.confusion_matrix(predicted, np.array([0, 0, 1]), 2).tolist() == [[1, 1], [0, 1]]


def test_classes_without_images_or_predictions_score_zero():
    scores = metrics.per_class(np.array([[2, 0, 0], [1, 0, 0], [0, 0, 0]]))
    assert scores.precision.tolist() == [pytest.approx(2 / 3), 0.0, 0.0]
    assert scores.support.tolist() == [2, 1, 0]


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    labels = np.array([0, 0, 1, 1])
    assert metrics.ece(probabilities, labels) == pytest.approx((0.1 * 2 + 0.6 * 2) / 4)


def test_the_brier_score_by_hand():
    assert metrics.brier(np.array([[0.8, 0.2]]), np.array([0])) == pytest.approx(0.08)


def test_a_certain_wrong_answer_has_a_finite_loss():
    assert metrics.log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(27.63, abs=0.01)


def test_temperature_undoes_over_confidence():
    random = np.random.default_rng(0)
    logits = random.normal(size=(5000, 5))
    labels = np.array([random.choice(5, p=row) for row in metrics.softmax(logits)])
    assert metrics.fit_temperature(4 * logits, labels) == pytest.approx(4.0, rel=0.15)


def test_temperature_stays_bounded_where_everything_is_right():
    assert metrics.fit_temperature(10 * np.eye(3), np.arange(3)) >= 0.05


def test_temperature_stays_moderate_if_few_images_are_right():
    labels = np.arange(76) % 12
    logits = 6 * np.eye(12)[labels] + np.random.default_rng(0).normal(size=(76, 12))
    temperature = metrics.fit_temperature(logits, labels)
    surest = metrics.softmax(logits / temperature).max(axis=1)
    assert 0.5 < temperature < 2
    assert 0.95 < surest.mean() < 0.999


def test_a_class_without_anything_has_scores_of_zero():
    scores = metrics.per_class(np.array([[2, 0, 0], [1, 0, 0], [0, 0, 0]]))
    assert scores.recall.tolist() == [1.0, 0.0, 0.0]
    assert scores.f1.tolist() == [pytest.approx(0.8), 0.0, 0.0]


@pytest.mark.parametrize("n", [4, 8, 98])
def test_perfect_score_adds_two_doubtful_images(n):
    labels = np.arange(n) % 2
    logits = 3.0 * np.eye(2)[labels]
    surest = metrics.softmax(logits / metrics.fit_temperature(logits, labels)).max(axis=1)
    assert surest == pytest.approx(np.full(n, 1 - 1 / (n + 2) / 2), abs=1e-3)


def test_calibration_error_uses_the_most_likely_class():
    probabilities = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    labels = np.array([1, 1, 0])
    assert metrics.ece(probabilities, labels) == pytest.approx((0.1 + 0.8 + 0.7) / 3)
