import numpy as np
import pytest

from rootstock.review.feasible import EXPONENTS, _fit
from rootstock.review.feasible import measure_feasibility as measure
from rootstock.tasks.single_label.task import SingleLabel
from tests.tasks.classes import classes


def measure_feasibility(features, labels, **options):
    return measure(SingleLabel(), features, classes(labels), **options)


def blobs(n, *, noise, seed=0, n_classes=3):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    return np.eye(8)[labels] * 3 + random.normal(size=(n, 8)) * noise, labels


def test_the_curve_grows_and_stays_under_the_ceiling():
    features, labels = blobs(600, noise=2.0)
    found = measure_feasibility(features, labels, folds=5, goals=(0.9,), seed=0)
    first, last = found.measured[0], found.measured[-1]
    assert first.accuracy < last.accuracy <= found.ceiling
    assert [point.n_images for point in found.extrapolated] == [960, 1920]
    assert found.extrapolated[1].accuracy >= last.accuracy - 0.01


def test_targets_that_are_reached_already_are_left_out():
    features, labels = blobs(300, noise=0.2)
    found = measure_feasibility(features, labels, folds=5, goals=(0.5, 0.9), seed=0)
    assert found.targets == ()


def test_target_beyond_noise_is_out_of_reach():
    random = np.random.default_rng(0)
    features = random.normal(size=(400, 8))  # independent of the labels
    found = measure_feasibility(features, np.arange(400) % 2, folds=5, goals=(0.99,), seed=0)
    assert found.targets[0].n_images is None


def test_too_few_images_of_class_have_no_curve():
    features, labels = blobs(15, noise=1.0)
    assert measure_feasibility(features, labels, folds=5, goals=(), seed=0) is None


def test_the_same_features_give_the_same_answer():
    features, labels = blobs(200, noise=1.5)
    first, second = (
        measure_feasibility(features, labels, folds=5, goals=(0.99,), seed=3) for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize(("a", "b", "c"), [(2.0, 0.4, 0.1), (1.0, 0.2, 0.0), (5.0, 0.8, 0.2)])
def test_a_power_law_is_found_again(a, b, c):
    sizes = [100, 200, 400, 800]
    ((found_a, found_b, found_c),) = _fit(sizes, np.array([[a * n**-b + c for n in sizes]]))
    assert (found_b, found_c) == pytest.approx((b, c), abs=1e-6)
    assert found_a == pytest.approx(a, rel=1e-6)


def test_rising_errors_give_a_flat_curve():
    ((a, _, c),) = _fit([100, 200, 400], np.array([[0.2, 0.3, 0.4]]))
    assert c == pytest.approx(0.2)
    assert 0 <= a < 0.2


def test_no_curve_of_the_grid_fits_better():
    random = np.random.default_rng(0)
    sizes, errors = np.array([50, 100, 200, 400]), random.uniform(0.1, 0.5, (20, 4))
    for (a, b, c), row in zip(_fit(sizes, errors), errors, strict=True):
        least = np.square(a * sizes**-b + c - row).sum()
        for _ in range(200):
            a2, b2 = random.uniform(0, 3), random.choice(EXPONENTS)
            c2 = random.uniform(0, row.min())
            assert least <= np.square(a2 * sizes**-b2 + c2 - row).sum() + 1e-12
