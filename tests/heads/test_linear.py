import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

from rootstock.errors import TrainingError
from rootstock.heads.linear import (
    PRIOR_IMAGES,
    LinearHead,
    MlpHead,
    read_head,
    shrink_scale,
    write_head,
)
from rootstock.tasks.single_label.learning import adjust_logits, log_shares
from rootstock.tasks.single_label.measures import softmax
from tests.tasks.classes import (
    cross_validate,
    cross_validate_path,
    fit_head_path,
    fit_linear_head,
    fit_mlp_head,
    walk_heads,
)


def blobs(n_classes=3, per_class=40, width=6, spread=1.0):
    random = np.random.default_rng(0)
    centres = random.normal(0, 2, (n_classes, width))
    labels = np.repeat(np.arange(n_classes), per_class)
    scale = np.linspace(0.01, 100, width)
    return (centres[labels] + random.normal(0, spread, (len(labels), width))) * scale, labels


def standardise(features):
    """Return the features as a head sees them during the fit."""
    variances, n_images = features.var(axis=0), len(features)
    common = PRIOR_IMAGES * variances.mean()
    shrunk = (n_images * variances + common) / (n_images + PRIOR_IMAGES)
    return (features - features.mean(axis=0)) / np.sqrt(shrunk)


def test_nearly_constant_feature_stays_small():
    random = np.random.default_rng(0)
    features = random.normal(0, [0.01, 1.0, 1.0, 1.0], (4, 4))
    scale = shrink_scale(features.var(axis=0), 4)
    assert scale.max() / scale.min() < 1.2
    many = shrink_scale(np.array([1e-4, 1.0, 1.0, 1.0]), 1_000_000)
    assert many == pytest.approx([0.0131, 1.0, 1.0, 1.0], abs=1e-3)


def test_two_images_per_class_suffice_with_quiet_features():
    """Dividing by the deviations of a few images would amplify the quiet features."""
    random = np.random.default_rng(0)
    centres, quiet = np.zeros((3, 400)), np.r_[np.full(3, 0.5), np.full(397, 0.05)]
    centres[:, :3] = 2 * np.eye(3)

    def draw(per_class):
        labels = np.repeat(np.arange(3), per_class)
        return centres[labels] + quiet * random.normal(size=(len(labels), 400)), labels

    head = fit_linear_head(*draw(2), l2=0.1, n_classes=3)
    features, labels = draw(200)
    assert np.mean(head.outputs(features).argmax(axis=1) == labels) > 0.9


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_the_folded_head_equals_scaler_and_regression(n_classes):
    features, labels = blobs(n_classes)
    head = fit_linear_head(features, labels, l2=0.1, n_classes=n_classes)
    model = LogisticRegression(C=1 / (0.1 * len(labels)), max_iter=10_000, tol=1e-9)
    scaled = standardise(features)
    expected = model.fit(scaled, labels).predict_proba(scaled)
    np.testing.assert_allclose(softmax(head.outputs(features)), expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(40, 200), (300, 30)], ids=["wide", "tall"])
def test_a_path_is_the_optimum_at_every_strength(shape):
    random = np.random.default_rng(1)
    labels = np.arange(shape[0]) % 4
    features = random.normal(size=shape) + 0.7 * np.eye(4)[labels] @ random.normal(
        size=(4, shape[1])
    )
    strengths = [1e-4, 10.0, 0.03]
    heads = fit_head_path(features, labels, strengths=strengths, n_classes=4)
    scaled = standardise(features)
    for strength, head in zip(strengths, heads, strict=True):
        model = LogisticRegression(C=1 / (strength * len(labels)), max_iter=10_000, tol=1e-9)
        np.testing.assert_allclose(
            softmax(head.outputs(features)),
            model.fit(scaled, labels).predict_proba(scaled),
            atol=2e-3,
        )


def test_balanced_weights_are_those_of_scikit_learn():
    features, labels = blobs(spread=3.0)
    features, labels = features[:100], labels[:100]  # 40, 40 and 20 of a class
    head = fit_linear_head(features, labels, l2=0.03, n_classes=3, weighting="balanced")
    model = LogisticRegression(
        C=1 / (0.03 * len(labels)), max_iter=10_000, tol=1e-9, class_weight="balanced"
    )
    scaled = standardise(features)
    expected = model.fit(scaled, labels).predict_proba(scaled)
    np.testing.assert_allclose(softmax(head.outputs(features)), expected, atol=1e-3)


def test_folds_score_equally_together_or_separately():
    features, labels = blobs(spread=4.0)
    scaled = standardise(features)
    scores = cross_validate_path(features, labels, folds=4, strengths=[0.01, 0.3], seed=0)
    splitter = StratifiedKFold(4, shuffle=True, random_state=0)
    assert scores.strengths == (0.3, 0.01)
    for row, strength in enumerate(scores.strengths):
        model = LogisticRegression(C=1 / (strength * len(labels) * 0.75), max_iter=10_000, tol=1e-9)
        alone = cross_val_score(model, scaled, labels, cv=splitter)
        assert scores.scores[row] == pytest.approx(alone.mean(), abs=0.01)


def test_same_features_give_same_path_bit_for_bit():
    features, labels = blobs()
    first, second = (
        fit_head_path(features, labels, strengths=[0.1, 1e-3], n_classes=3) for _ in range(2)
    )
    assert all((a.weights == b.weights).all() for a, b in zip(first, second, strict=True))


def test_copied_and_huge_features_do_no_harm():
    features, labels = blobs()
    doubled = np.concatenate([features, features * 1e6], axis=1)
    head = fit_linear_head(doubled, labels, l2=1e-3, n_classes=3)
    assert np.mean(head.outputs(doubled).argmax(axis=1) == labels) > 0.95


def test_a_stronger_penalty_gives_smaller_weights():
    features, labels = blobs()
    norms = [
        np.abs(fit_linear_head(features, labels, l2=l2, n_classes=3).weights).sum()
        for l2 in (1e-3, 1e-1, 10)
    ]
    assert norms == sorted(norms, reverse=True)


def test_strength_means_same_for_twice_images():
    features, labels = blobs(per_class=4_000)
    features = features / features.std(axis=0)  # on few images, unequal ones are drawn together
    once = fit_linear_head(features, labels, l2=0.1, n_classes=3)
    twice = fit_linear_head(np.tile(features, (2, 1)), np.tile(labels, 2), l2=0.1, n_classes=3)
    np.testing.assert_allclose(once.weights, twice.weights, rtol=1e-2, atol=1e-4)


def test_a_class_without_images_is_never_predicted():
    features, labels = blobs()
    head = fit_linear_head(features, np.where(labels == 1, 3, labels), l2=0.1, n_classes=5)
    assert set(head.outputs(features).argmax(axis=1)) == {0, 2, 3}


def test_constant_features_do_no_harm():
    features, labels = blobs()
    features[:, 2] = 7.0
    head = fit_linear_head(features, labels, l2=0.1, n_classes=3)
    assert np.isfinite(head.outputs(features)).all()


def test_balanced_weights_help_the_rare_class():
    features, labels = blobs(2, 200, spread=4)
    keep = np.concatenate([np.arange(200), np.arange(200, 210)])
    features, labels = features[keep], labels[keep]
    recall = [
        np.mean(
            fit_linear_head(features, labels, l2=1.0, n_classes=2, weighting=weight)
            .outputs(features[labels == 1])
            .argmax(axis=1)
        )
        for weight in ("none", "balanced")
    ]
    assert recall[1] > recall[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, y: (f, np.zeros_like(y)), "at least two classes, but there are 1"),
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
    assert (found.outputs(features) == head.outputs(features)).all()


def test_head_survives_disk_whatever_order_of_its_numbers(tmp_path):
    weights = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    write_head(LinearHead(weights, np.zeros(2, np.float32)), tmp_path / "head.safetensors")
    assert (read_head(tmp_path / "head.safetensors").weights == weights).all()


def test_adjusted_head_favours_no_class_for_being_frequent():
    labels = np.array([0] * 90 + [1] * 10)
    head = LinearHead(np.zeros((2, 1), np.float32), np.log([0.9, 0.1]).astype(np.float32))
    adjusted = adjust_logits(head, labels, n_classes=2)
    assert softmax(adjusted.outputs(np.zeros((1, 1))))[0] == pytest.approx([0.5, 0.5])


def test_class_without_images_is_not_lifted_by_adjusting():
    shares = log_shares(np.array([0, 0, 0, 1]), n_classes=3)
    assert shares[2] == 0.0
    assert shares[0] - shares[1] == pytest.approx(np.log(3))


def test_outer_layer_of_mlp_head_is_adjusted():
    linear = LinearHead(np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    adjusted = adjust_logits(MlpHead(linear, linear), np.array([0, 0, 0, 1]), n_classes=2)
    assert adjusted.inner is linear
    assert adjusted.outer.bias[1] - adjusted.outer.bias[0] == pytest.approx(np.log(3))


def fits_on(device):
    """Return the outputs of every way to fit a head on ``device``."""
    features, labels = blobs()
    options = {"n_classes": 3, "weighting": "balanced", "device": device}
    heads = [head for _, head in walk_heads(features, labels, strengths=[0.1, 0.01], **options)]
    heads.append(fit_mlp_head(features, labels, hidden=4, l2=0.01, **options))
    folds = cross_validate_path(features, labels, folds=3, strengths=[0.1], seed=0, device=device)
    return [head.outputs(features) for head in heads], folds.losses


def test_fit_creates_tensors_on_the_given_device():
    """Tensors created elsewhere use torch's default device, which cannot compute here."""
    expected = fits_on(torch.device("cpu"))
    with torch.device("meta"):
        found = fits_on(torch.device("cpu"))
    for one, other in zip(expected[0] + [expected[1]], found[0] + [found[1]], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_heads():
    expected, found = fits_on(torch.device("cpu")), fits_on(torch.device("cuda"))
    for one, other in zip(expected[0] + [expected[1]], found[0] + [found[1]], strict=True):
        np.testing.assert_allclose(one, other, atol=0.02)
