import numpy as np
import pytest

from rootstock.tasks.single_label.neighbours import bayes_accuracy_bound, leave_one_out_accuracy


def test_separate_clusters_are_told_apart():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    features = np.eye(3)[labels] * 5 + rng.normal(size=(60, 3))
    assert leave_one_out_accuracy(features, labels) > 0.9


def test_image_is_not_neighbour_of_its_own():
    labels = np.array([0, 1] * 10)
    features = np.repeat(np.random.default_rng(1).normal(size=(10, 4)), 2, axis=0)
    assert leave_one_out_accuracy(features, labels, neighbours=1) == 0.0


def test_agrees_with_scikit_learn_on_one_neighbour():
    from sklearn.model_selection import LeaveOneOut, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, 80)
    features = rng.normal(size=(80, 6)) + labels[:, None]
    directions = features - features.mean(axis=0)
    knn = KNeighborsClassifier(1, metric="cosine")
    expected = cross_val_score(knn, directions, labels, cv=LeaveOneOut()).mean()
    assert leave_one_out_accuracy(features, labels, neighbours=1) == pytest.approx(expected)


def test_two_images_have_one_neighbour_each():
    assert leave_one_out_accuracy(np.eye(2), np.array([0, 1])) == 0.0


@pytest.mark.parametrize(
    ("nearest", "classes", "bound"), [(1.0, 5, 1.0), (0.5, 2, 0.5), (0.68, 2, 0.8)]
)
def test_cover_and_hart_bound(nearest, classes, bound):
    # e = 2 R (1 - R) for two classes: R = .2 gives e = .32
    assert bayes_accuracy_bound(nearest, classes) == pytest.approx(bound)
