"""What a model has seen: distances, the limit of the unknown, and prediction sets."""

import numpy as np
import pytest

from rootstock.model.novelty import MAX_FEATURES, Reference


def clouds(n, centres, *, seed=0, spread=0.1):
    """Features float32[n,D] around unit vectors, with the number of their centre."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(centres), n)
    return (centres[labels] + random.normal(0, spread, (n, centres.shape[1]))).astype(
        np.float32
    ), labels


@pytest.fixture
def known():
    """Three classes in sixteen dimensions; the model is right four times in five."""
    centres = np.eye(16)[:3]
    train, _ = clouds(300, centres)
    val, labels = clouds(200, centres, seed=1)
    random = np.random.default_rng(2)
    probabilities = random.dirichlet(np.ones(3), 200) * 0.4
    probabilities[np.arange(200), labels] += 0.6
    return Reference.measure(train, val, probabilities, labels), centres


def test_known_images_are_near_and_foreign_ones_far(known):
    reference, centres = known
    limit = reference.limit(0.02)
    fresh, _ = clouds(500, centres, seed=3)
    foreign, _ = clouds(500, np.eye(16)[8:11], seed=4)
    assert (reference.distance(fresh) > limit).mean() < 0.06
    assert (reference.distance(foreign) > limit).mean() > 0.99


def test_the_length_of_features_does_not_matter(known):
    reference, centres = known
    features, _ = clouds(5, centres, seed=5)
    np.testing.assert_allclose(
        reference.distance(features), reference.distance(9 * features), atol=1e-5
    )


def test_a_smaller_share_of_the_unknown_has_a_farther_limit(known):
    reference, _ = known
    assert reference.limit(0.2) < reference.limit(0.01) <= reference.distances[-1]


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
def test_prediction_sets_hold_the_true_class_as_often_as_they_say(coverage):
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.full(10, 0.3), 4_000)
    labels = np.array([random.choice(10, p=row) for row in probabilities])
    features = random.normal(size=(4_000, 8))
    half = slice(0, 2_000), slice(2_000, None)
    reference = Reference.measure(
        features[half[0]], features[half[0]], probabilities[half[0]], labels[half[0]]
    )
    sets = [reference.prediction_set(row, coverage) for row in probabilities[half[1]]]
    held = np.mean([label in kept for label, kept in zip(labels[half[1]], sets, strict=True)])
    assert coverage - 0.025 < held
    # Not by taking every class
    assert np.mean([len(kept) for kept in sets]) < 6


def test_a_set_is_never_empty_and_begins_with_the_most_probable(known):
    reference, _ = known
    kept = reference.prediction_set(np.array([0.34, 0.33, 0.33]), 0.05)
    assert kept.tolist() == [0]


def test_few_validation_images_cannot_promise_much(known):
    reference, centres = known
    few, labels = clouds(5, centres)
    small = Reference.measure(few, few, np.eye(3)[labels], labels)
    assert sorted(small.prediction_set(np.array([1.0, 0.0, 0.0]), 0.95)) == [0, 1, 2]


def test_only_so_many_training_images_are_kept():
    features = np.random.default_rng(0).normal(size=(3 * MAX_FEATURES, 4))
    labels = np.zeros(3, int)
    found = Reference.measure(features, features[:3], np.eye(3), labels)
    assert found.features.shape == (MAX_FEATURES, 4)
    assert found.features.dtype == np.float16


def test_it_comes_back_from_its_arrays(known):
    reference, centres = known
    again = Reference.from_arrays(reference.arrays())
    features, _ = clouds(4, centres, seed=9)
    np.testing.assert_array_equal(again.distance(features), reference.distance(features))
    np.testing.assert_allclose(again.shares.sum(), 1, rtol=1e-6)
    with pytest.raises(KeyError, match="scores"):
        Reference.from_arrays({"features": features, "distances": features})
