"""The served head learns from all labelled images, and is judged on images it did not see."""

import dataclasses

import numpy as np
import pytest

from rootstock.heads.linear import read_head
from rootstock.tasks.single_label.learning import SoftmaxSolver
from rootstock.tasks.single_label.measures import fit_temperature
from rootstock.training import final_head
from rootstock.training.final_head import fit_final_head
from rootstock.training.objectives import HEAD_FILE
from rootstock.training.trials import HeadTrial
from tests.tasks.classes import classes

L2 = 0.01


def fit(tmp_path, features, targets, params=None, **options):
    trial = HeadTrial({"tap": "last"} | (params or {}), {} if params else {"l2": L2}, tmp_path)
    solver = options.pop("solver", SoftmaxSolver())
    return fit_final_head(trial, solver, features, targets, device="cpu", **options)


def separable(n=60, width=5):
    labels = np.tile(np.arange(3), n // 3)
    noise = np.random.default_rng(0).normal(size=(n, width))
    return (noise + 3 * np.eye(width)[labels]).astype(np.float16), labels


def test_the_final_head_is_that_of_all_images(tmp_path):
    features, labels = separable()
    final = fit(tmp_path, features, classes(labels))
    head = read_head(final.trial.directory / HEAD_FILE)
    expected = SoftmaxSolver().fit(features, classes(labels), l2=L2)
    assert np.array_equal(head.weights, expected.weights)
    assert final.trial.tap == "last"
    assert final.trial.l2 == L2


def test_outputs_come_from_heads_without_the_image(tmp_path):
    random = np.random.default_rng(0)
    features = random.normal(size=(80, 200)).astype(np.float32)
    labels = np.tile([0, 1], 40)  # only memorizable
    final = fit(tmp_path, features, classes(labels))
    head = read_head(final.trial.directory / HEAD_FILE)
    assert np.mean(head.outputs(features).argmax(axis=1) == labels) == 1.0
    assert np.mean(final.outputs.argmax(axis=1) == labels) < 0.7


def test_copies_are_answered_by_heads_without_them(tmp_path):
    random = np.random.default_rng(0)
    once = random.normal(size=(40, 200))
    labels = np.repeat(np.tile([0, 1], 20), 3)
    targets = dataclasses.replace(classes(labels), groups=np.repeat(np.arange(40), 3))
    final = fit(tmp_path, np.repeat(once, 3, axis=0).astype(np.float32), targets)
    assert np.mean(final.outputs.argmax(axis=1) == labels) < 0.7


def test_single_image_class_is_learnt_but_not_judged(tmp_path):
    features, labels = separable()
    labels = np.r_[labels[:-1], 3]
    final = fit(tmp_path, features, classes(labels))
    assert len(final.targets) == len(final.outputs) == 59
    assert read_head(final.trial.directory / HEAD_FILE).bias[3] > -100


def test_unseen_outputs_are_adjusted_as_the_head_is(tmp_path):
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(90, 4)).astype(np.float32), np.repeat([0, 1], [80, 10])
    plain = fit(tmp_path / "plain", features, classes(labels))
    adjusted = fit(
        tmp_path / "adjusted", features, classes(labels), solver=SoftmaxSolver("logit_adjusted")
    )
    gaps = np.diff(adjusted.outputs - plain.outputs, axis=1)
    assert gaps == pytest.approx(np.full((90, 1), np.log(8)), abs=1e-3)


def test_class_means_are_scaled_by_unseen_images(tmp_path):
    features, labels = separable()
    final = fit(tmp_path, features, classes(labels), {"prototypes": True})
    assert fit_temperature(final.outputs, labels) == pytest.approx(1.0, abs=0.01)
    head = read_head(final.trial.directory / HEAD_FILE)
    assert np.mean(head.outputs(features).argmax(axis=1) == labels) > 0.9


def test_head_with_hidden_layer_is_not_fitted_again(tmp_path):
    features, labels = separable()
    assert fit(tmp_path, features, classes(labels), {"hidden": 8}) is None


def test_with_very_many_images_nothing_is_cross_validated(tmp_path, monkeypatch):
    monkeypatch.setattr(final_head, "CROSS_VALIDATED", 100)
    features, labels = separable()
    final = fit(tmp_path, features, classes(labels))
    assert final.outputs.shape == (0, 3)
    assert len(final.targets) == 0
