"""What a model has seen: distances, and the limit of the unknown."""

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
    """Three classes in sixteen dimensions."""
    centres = np.eye(16)[:3]
    train, _ = clouds(300, centres)
    val, _ = clouds(200, centres, seed=1)
    return Reference.measure(train, val, {"shares": np.full(3, 1 / 3)}), centres


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


def test_only_so_many_training_images_are_kept():
    features = np.random.default_rng(0).normal(size=(3 * MAX_FEATURES, 4))
    found = Reference.measure(features, features[:3], {})
    assert found.features.shape == (MAX_FEATURES, 4)
    assert found.features.dtype == np.float16


def test_it_comes_back_from_its_arrays(known):
    reference, centres = known
    again = Reference.from_arrays(reference.arrays())
    features, _ = clouds(4, centres, seed=9)
    np.testing.assert_array_equal(again.distance(features), reference.distance(features))
    np.testing.assert_allclose(again.remembered["shares"].sum(), 1, rtol=1e-6)
    with pytest.raises(KeyError, match="distances"):
        Reference.from_arrays({"features": features})
