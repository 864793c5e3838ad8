import pytest

from rootstock.assess.size import size_class

THRESHOLDS = {"small_below": 1000, "small_per_class_below": 10, "large_from": 20_000}


@pytest.mark.parametrize(
    ("n_train", "per_class", "expected"),
    [
        (999, 100, "small"),
        (1000, 100, "medium"),
        (5000, 9.5, "small"),
        (19_999, 10, "medium"),
        (20_000, 2000, "large"),
        (50_000, 5, "small"),
    ],
)
def test_size_class_follows_its_thresholds(n_train, per_class, expected):
    assert size_class(n_train, per_class, **THRESHOLDS) == expected
