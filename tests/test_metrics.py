import numpy as np
import pytest

from rootstock import metrics
from rootstock.metrics import bootstrap_interval, draw_counts, effective_size, newcombe_interval


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(0, 0, 0.0, 1.0), (10, 10, 0.722, 1.0), (50, 100, 0.404, 0.596)],
)
def test_the_wilson_interval(right, total, low, high):
    assert metrics.wilson_interval(right, total) == pytest.approx((low, high), abs=1e-3)


@pytest.mark.parametrize(
    ("table", "interval"),
    # The first three are in Newcombe (1998) table II, the last are mirrored.
    [
        ((36, 12, 2, 0), (0.0569, 0.3404)),
        ((36, 2, 12, 0), (-0.3404, -0.0569)),
        ((54, 0, 0, 0), (-0.0664, 0.0664)),
    ],
)
def test_the_interval_is_newcombes(table, interval):
    assert newcombe_interval(*table) == pytest.approx(interval, abs=1e-4)


def test_the_interval_holds_what_it_promises():
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(2_000):
        # Shares .93 and .90 of 80 images, positively correlated
        counts = random.multinomial(80, [0.88, 0.05, 0.02, 0.05])
        low, high = newcombe_interval(*counts.tolist())
        inside += low <= 0.03 <= high
    assert 0.93 < inside / 2_000 < 0.985


def test_no_image_tells_nothing():
    assert newcombe_interval(0, 0, 0, 0) == (-1.0, 1.0)


def test_the_bootstrap_holds_what_it_promises():
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(100):
        gains = random.choice([1.0, -1.0, 0.0], size=120, p=[0.15, 0.05, 0.8])
        low, high = bootstrap_interval(lambda rows, g=gains: g[rows].mean(), np.zeros(120, int))
        inside += low <= 0.1 <= high
    assert 88 <= inside <= 100


def test_bootstrap_draws_keep_stratum_sizes():
    strata = np.array([1, 0, 1, 2, 1, 0])
    seen = set()

    def gain(rows):
        seen.add(tuple(np.bincount(strata[rows])))
        return 0.0

    assert bootstrap_interval(gain, strata) == (0.0, 0.0)
    assert seen == {(2, 3, 1)}


def test_groups_are_drawn_whole():
    groups = np.array([7, 7, 3, 3, 3, 9])
    counts = draw_counts(groups, 6)
    assert len(counts) == metrics.BOOTSTRAP_ROUNDS
    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, 2] == counts[:, 4]).all()
    assert counts[:, [0, 2, 5]].sum(axis=1) == pytest.approx(3)


def test_images_of_groups_are_worth_fewer():
    right = np.array([True, True, False, False] * 10)
    assert effective_size(right, None) == 40
    assert effective_size(right, np.arange(40)) == 40
    assert effective_size(right, np.arange(40) // 2) == pytest.approx(20, rel=0.1)
    assert effective_size(np.ones(40, bool), np.arange(40) // 4) == pytest.approx(10)


def test_a_grouped_bootstrap_is_wider():
    values = np.repeat(np.random.default_rng(0).normal(size=20), 10)
    strata = np.zeros(200, int)
    plain = bootstrap_interval(lambda rows: values[rows].mean(), strata)
    grouped = bootstrap_interval(
        lambda rows: values[rows].mean(), strata, groups=np.repeat(np.arange(20), 10)
    )
    assert np.diff(grouped) > 2 * np.diff(plain)
