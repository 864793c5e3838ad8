import pytest

from rootstock import metrics


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(0, 0, 0.0, 1.0), (10, 10, 0.722, 1.0), (50, 100, 0.404, 0.596)],
)
def test_the_wilson_interval(right, total, low, high):
    assert metrics.wilson_interval(right, total) == pytest.approx((low, high), abs=1e-3)
