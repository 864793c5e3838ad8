"""Classify the size of a data set."""

from __future__ import annotations

from rootstock.config.choices import SizeClass


def size_class(
    n_train: int,
    median_per_class: float,
    *,
    small_below: int,
    small_per_class_below: int,
    large_from: int,
) -> SizeClass:
    """Return small, medium or large, by the number of training images and of the median class."""
    if n_train < small_below or median_per_class < small_per_class_below:
        return "small"
    return "large" if n_train >= large_from else "medium"
