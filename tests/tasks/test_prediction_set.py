"""Prediction sets contain the true class as often as they promise."""

import numpy as np
import pytest

from rootstock.tasks.single_label.prediction_set import prediction_set
from rootstock.tasks.single_label.task import SingleLabel
from tests.tasks.classes import classes


def scores_of(probabilities, labels):
    targets = classes(labels, probabilities.shape[1])
    return SingleLabel().remember(probabilities, targets)["scores"]


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
def test_prediction_sets_keep_their_coverage(coverage):
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.full(10, 0.3), 4_000)
    labels = np.array([random.choice(10, p=row) for row in probabilities])
    half = slice(0, 2_000), slice(2_000, None)
    scores = scores_of(probabilities[half[0]], labels[half[0]])
    sets = [prediction_set(row, coverage, scores) for row in probabilities[half[1]]]
    held = np.mean([label in kept for label, kept in zip(labels[half[1]], sets, strict=True)])
    assert coverage - 0.025 < held
    # Not by taking every class
    assert np.mean([len(kept) for kept in sets]) < 6


def test_set_is_never_empty_and_is_ordered():
    random = np.random.default_rng(2)
    probabilities = random.dirichlet(np.ones(3), 200) * 0.4
    labels = np.arange(200) % 3
    probabilities[np.arange(200), labels] += 0.6
    scores = scores_of(probabilities, labels)
    assert prediction_set(np.array([0.34, 0.33, 0.33]), 0.05, scores).tolist() == [0]


def test_few_validation_images_cannot_promise_much():
    labels = np.array([0, 1, 2, 1, 0])
    scores = scores_of(np.eye(3)[labels], labels)
    assert sorted(prediction_set(np.array([1.0, 0.0, 0.0]), 0.95, scores)) == [0, 1, 2]


def test_the_shares_of_predicted_classes_are_remembered():
    labels = np.array([0, 1, 2, 1, 0])
    shares = SingleLabel().remember(np.eye(3)[labels], classes(labels))["shares"]
    assert shares.tolist() == pytest.approx([0.4, 0.4, 0.2])


def test_score_of_set_is_that_of_its_rank():
    scores = np.arange(1, 10) / 10  # of coverage .5 the fifth of nine
    probabilities = np.array([0.51, 0.5, 0.49])
    assert prediction_set(probabilities, 0.5, scores).tolist() == [0, 1]
    assert prediction_set(probabilities, 0.9, scores).tolist() == [0, 1, 2]
