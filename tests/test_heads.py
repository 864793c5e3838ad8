import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rootstock.errors import TrainingError
from rootstock.heads import cross_validate, fit_linear_head, read_head, write_head


def blobs(n_classes=3, per_class=40, width=6, spread=1.0):
    random = np.random.default_rng(0)
    centres = random.normal(0, 2, (n_classes, width))
    labels = np.repeat(np.arange(n_classes), per_class)
    scale = np.linspace(0.01, 100, width)
    return (centres[labels] + random.normal(0, spread, (len(labels), width))) * scale, labels


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_the_folded_head_equals_scaler_and_regression(n_classes):
    features, labels = blobs(n_classes)
    head = fit_linear_head(features, labels, l2=0.1, n_classes=n_classes)
    model = LogisticRegression(C=1 / (0.1 * len(labels)), max_iter=1000)
    expected = make_pipeline(StandardScaler(), model).fit(features, labels)
    np.testing.assert_allclose(
        head.probabilities(features), expected.predict_proba(features), atol=1e-4
    )


def test_a_stronger_penalty_gives_smaller_weights():
    features, labels = blobs()
    norms = [
        np.abs(fit_linear_head(features, labels, l2=l2, n_classes=3).weights).sum()
        for l2 in (1e-3, 1e-1, 10)
    ]
    assert norms == sorted(norms, reverse=True)


def test_a_strength_means_the_same_for_twice_the_images():
    features, labels = blobs()
    once = fit_linear_head(features, labels, l2=0.1, n_classes=3)
    twice = fit_linear_head(np.tile(features, (2, 1)), np.tile(labels, 2), l2=0.1, n_classes=3)
    np.testing.assert_allclose(once.weights, twice.weights, rtol=1e-2, atol=1e-4)


def test_a_class_without_images_is_never_predicted():
    features, labels = blobs()
    head = fit_linear_head(features, np.where(labels == 1, 3, labels), l2=0.1, n_classes=5)
    assert set(head.logits(features).argmax(axis=1)) == {0, 2, 3}


def test_constant_features_do_no_harm():
    features, labels = blobs()
    features[:, 2] = 7.0
    head = fit_linear_head(features, labels, l2=0.1, n_classes=3)
    assert np.isfinite(head.logits(features)).all()


def test_balanced_weights_help_the_rare_class():
    features, labels = blobs(2, 200, spread=4)
    keep = np.concatenate([np.arange(200), np.arange(200, 210)])
    features, labels = features[keep], labels[keep]
    recall = [
        np.mean(
            fit_linear_head(features, labels, l2=1.0, n_classes=2, class_weight=weight)
            .logits(features[labels == 1])
            .argmax(axis=1)
        )
        for weight in (None, "balanced")
    ]
    assert recall[1] > recall[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, y: (f, np.zeros_like(y)), "two classes or more, got 1"),
        (lambda f, y: (f * np.nan, y), "values that are not finite"),
    ],
)
def test_what_no_head_can_learn_is_explained(change, message):
    features, labels = change(*blobs())
    with pytest.raises(TrainingError, match=message):
        fit_linear_head(features, labels, l2=0.1, n_classes=3)


def test_cross_validation_measures_unseen_images():
    features, labels = blobs(spread=0.1)
    assert cross_validate(features, labels, folds=5, l2=0.01, seed=0)[0] == 1.0
    shuffled = np.random.default_rng(0).permutation(labels)
    assert cross_validate(features, shuffled, folds=5, l2=0.01, seed=0)[0] < 0.6


def test_cross_validation_copes_with_a_class_of_two():
    features, labels = blobs()
    keep = np.concatenate([np.flatnonzero(labels != 2), np.flatnonzero(labels == 2)[:2]])
    mean, std = cross_validate(features[keep], labels[keep], folds=5, l2=0.1, seed=0)
    assert 0.5 < mean <= 1.0
    assert std >= 0


def test_a_head_survives_the_disk(tmp_path):
    features, labels = blobs()
    head = fit_linear_head(features, labels, l2=0.1, n_classes=3)
    write_head(head, tmp_path / "head.safetensors")
    found = read_head(tmp_path / "head.safetensors")
    assert (found.logits(features) == head.logits(features)).all()
