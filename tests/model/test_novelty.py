"""The images that a model has seen: distances, and the limit for `unknown`."""

import numpy as np
import pytest

from rootstock.model.novelty import MAX_FEATURES, Reference


def clouds(n, centres, *, seed=0, spread=0.1):
    """Return features float32[n,D] around unit vectors, with the number of their centre."""
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


def test_smaller_share_of_unknown_has_farther_limit(known):
    reference, _ = known
    assert reference.limit(0.2) < reference.limit(0.01) <= reference.distances[-1]


def test_number_of_kept_training_images_is_limited():
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


def test_distance_is_mean_over_five_nearest_directions():
    angles = np.deg2rad([0, 10, 20, 30, 40, 50, 180])
    train = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    reference = Reference.measure(3 * train, train[:2], {})
    cosines = np.cos(np.deg2rad([0, 10, 20, 30, 40]))
    found = reference.distance(np.array([[2.0, 0.0], [0.0, 0.0]]))
    assert found[0] == pytest.approx(1 - cosines.mean(), abs=1e-3)
    assert found[1] == pytest.approx(1.0)
    assert found.dtype == np.float32


def test_fewer_training_images_than_neighbours_are_all_asked():
    reference = Reference.measure(np.eye(2), np.eye(2), {})
    assert reference.distance(np.array([[1.0, 0.0]]))[0] == pytest.approx(0.5, abs=1e-3)


def test_limit_is_exceeded_by_its_validation_share():
    reference = Reference(np.eye(2, dtype=np.float16), np.arange(1, 100, dtype=np.float32) / 100)
    assert reference.limit(0.1) == pytest.approx(0.9)
    assert reference.limit(0.5) == pytest.approx(0.5)
    assert reference.limit(0.001) == pytest.approx(0.99)  # as far as is known


def test_distances_of_the_validation_images_rise():
    random = np.random.default_rng(0)
    reference = Reference.measure(random.normal(size=(50, 4)), random.normal(size=(30, 4)), {})
    assert len(reference.distances) == 30
    assert (np.diff(reference.distances) >= 0).all()
    assert sorted(reference.arrays()) == ["distances", "features"]


def test_kept_training_images_are_evenly_spread():
    features = np.stack([np.arange(3 * MAX_FEATURES) + 1.0, np.ones(3 * MAX_FEATURES)], axis=1)
    kept = Reference.measure(features, features[:3], {}).features.astype(float)
    slopes = kept[:, 0] / kept[:, 1]
    assert slopes[0] == pytest.approx(1, rel=0.01)
    assert slopes[-1] == pytest.approx(3 * MAX_FEATURES, rel=0.1)
