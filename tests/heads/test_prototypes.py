import numpy as np
import pytest

from rootstock.heads.prototypes import fit_prototypes
from rootstock.tasks.single_label.learning import SoftmaxSolver
from tests.tasks.classes import classes


def draw(per_class=3, n_classes=4, width=50):
    random = np.random.default_rng(1)
    labels = np.tile(np.arange(n_classes), per_class)
    centres = random.normal(5, 1, (n_classes, width))
    return (centres[labels] + random.normal(0, 2, (len(labels), width))).astype(np.float16), labels


def test_largest_output_is_nearest_mean_by_cosine():
    features, labels = draw()
    others = np.random.default_rng(2).normal(5, 2, (200, 50))
    mean = features.astype(float).mean(axis=0)

    def direction(rows):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    known = direction(features.astype(float) - mean)
    means = direction(np.stack([known[labels == one].mean(axis=0) for one in range(4)]))
    cosines = direction(others - mean) @ means.T
    outputs = fit_prototypes(features, labels).outputs(others)
    assert (outputs.argmax(axis=1) == cosines.argmax(axis=1)).all()
    assert np.corrcoef(outputs.ravel(), cosines.ravel())[0, 1] > 0.95


def test_one_image_of_each_class_is_enough():
    features, labels = draw(per_class=1)
    assert (fit_prototypes(features, labels).outputs(features).argmax(axis=1) == labels).all()


def test_equal_images_give_a_finite_head():
    head = fit_prototypes(np.ones((4, 3)), np.array([0, 1, 0, 1]))
    assert np.isfinite(head.weights).all()
    assert np.isfinite(head.bias).all()


def test_a_class_without_images_is_not_predicted():
    features, labels = draw(n_classes=2)
    head = SoftmaxSolver().fit_prototypes(features, classes(2 * labels, n_classes=4))
    assert set(head.outputs(features).argmax(axis=1)) <= {0, 2}


def test_outputs_are_scaled_for_lowest_unseen_loss():
    solver, labels = SoftmaxSolver(), np.tile(np.arange(4), 30)
    outputs = np.eye(4)[labels] + np.random.default_rng(0).normal(0, 0.3, (120, 4))

    def loss(factor):
        return solver.measure(factor * outputs, classes(labels))[1].mean()

    scale = solver.best_scale(outputs, classes(labels))
    assert loss(scale) == pytest.approx(min(map(loss, np.linspace(1, 20, 191))), abs=0.01)
