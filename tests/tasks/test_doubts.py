"""Labels that confident learning doubts."""

import numpy as np

from rootstock.tasks.single_label.task import SingleLabel
from rootstock.tasks.targets import Targets

CLASSES = ("ants", "bees", "wasps")


def clusters(n=300, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    features = np.eye(12)[labels] * 6 + 0.5 * random.normal(size=(n, 12))
    return features, labels


def doubts_of(features, labels):
    return SingleLabel().doubts(features, Targets(labels, CLASSES, labels), folds=5, seed=0)


def test_swapped_labels_are_found_and_named():
    features, labels = clusters()
    labels = labels.copy()
    labels[[0, 30]] = 1  # both look like ants
    doubts = doubts_of(features, labels)
    assert {doubt.row for doubt in doubts} == {0, 30}
    assert {doubt.suggested for doubt in doubts} == {"ants"}


def test_clean_labels_are_not_doubted():
    assert doubts_of(*clusters()) == []


def test_tiny_or_single_classes_have_no_doubts():
    features, labels = clusters(9)
    assert doubts_of(features, np.r_[labels[:-1] * 0, 1]) == []


def test_two_classes_are_enough_to_doubt_a_label():
    features, labels = clusters()
    pair = labels < 2
    wrong = labels[pair].copy()
    wrong[0] = 1
    assert [doubt.row for doubt in doubts_of(features[pair], wrong)] == [0]
