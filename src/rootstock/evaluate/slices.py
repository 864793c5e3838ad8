"""Slices: groups of test images, by their metadata, on which a model is worse.

Each value of a column, or each quarter of its numbers, is compared with all other images by a
permutation test of whole groups. P-values are corrected for the number of slices (Holm 1979), so
that about one evaluation in twenty shows a slice by chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rootstock.system.escape import markdown_table

MIN_SLICE_IMAGES = 20
"""Minimum images in a slice, and outside it: fewer show little."""
MAX_VALUES = 20
"""A column with more values is read as numbers, or skipped."""
ROUNDS = 5_000
ENOUGH_AS_BAD = 50
"""Random slices that are as bad, after which more rounds change nothing (Besag, Clifford 1991)."""
LEVEL = 0.05


class Slice(NamedTuple):
    """Images whose metadata ``column`` is ``value``: their mean error, and that of the others."""

    column: str
    value: str
    n_images: int
    error: float
    others: float
    p_value: float


class SliceSearch(NamedTuple):
    """The significantly worse slices of ``n_slices``, worst first."""

    worse: list[Slice]
    n_slices: int


def find_worse_slices(
    errors: np.ndarray,
    facts: Sequence[Mapping[str, str]],
    groups: np.ndarray | None = None,
    *,
    seed: int = 0,
) -> SliceSearch:
    """Return slices of images with larger ``errors`` float64[N], corrected for their number.

    ``facts`` are the metadata of each image; images of one of ``groups`` int64[N] count together.
    """
    units = np.arange(len(errors)) if groups is None else np.asarray(groups)
    looked_at = [
        _compare(column, value, mask, errors, units, seed)
        for column, value, mask in _list_slices(facts)
    ]
    looked_at.sort(key=lambda one: one.p_value)
    worse = []
    for rank, one in enumerate(looked_at):
        if one.p_value * (len(looked_at) - rank) > LEVEL:
            break
        worse.append(one)
    worse.sort(key=lambda one: one.others - one.error)
    return SliceSearch(worse, len(looked_at))


def describe_slices(search: SliceSearch) -> list[str]:
    """Return the lines of the report; empty if there were no slices."""
    if not search.n_slices:
        return []
    lines = ["", "## Slices", ""]
    if not search.worse:
        return [
            *lines,
            f"None of {search.n_slices} slices by metadata is significantly worse than the other "
            "images.",
        ]
    rows = [
        (one.column, one.value, one.n_images, f"{one.error:.3g}", f"{one.others:.3g}")
        for one in search.worse
    ]
    return [
        *lines,
        f"The model is significantly worse on these of {search.n_slices} slices by metadata "
        "(permutation test, corrected for their number):",
        "",
        *markdown_table(("column", "value", "images", "mean error", "of the others"), rows),
    ]


def _list_slices(facts: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield column, value, and the images bool[N] in the slice."""
    for column in facts[0] if facts else ():
        cells = np.array([one.get(column, "") for one in facts], object)
        values = sorted(set(cells) - {""})
        if len(values) <= MAX_VALUES:
            masks = [(value, cells == value) for value in values]
        else:
            masks = list(_quarters(cells))
        for value, mask in masks:
            if MIN_SLICE_IMAGES <= mask.sum() <= len(cells) - MIN_SLICE_IMAGES:
                yield column, value, mask


def _quarters(cells: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    try:
        numbers = np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError:
        return
    known = np.isfinite(numbers)
    if not known.any():
        return
    borders = np.unique(np.quantile(numbers[known], (0.25, 0.5, 0.75)))
    bins = np.searchsorted(borders, numbers, side="left")
    for number in range(len(borders) + 1):
        mask = known & (bins == number)
        if mask.any():
            yield f"{numbers[mask].min():g} to {numbers[mask].max():g}", mask


def _compare(
    column: str, value: str, mask: np.ndarray, errors: np.ndarray, units: np.ndarray, seed: int
) -> Slice:
    """Return the slice with the share of random slices, of as many groups, that are as bad."""
    _, codes = np.unique(np.stack([units, mask]), axis=1, return_inverse=True)
    count = int(codes.max()) + 1
    sums, sizes = np.zeros(count), np.zeros(count)
    np.add.at(sums, codes, errors)
    np.add.at(sizes, codes, 1)
    inside = np.zeros(count, bool)
    inside[codes[mask]] = True
    error, others = float(errors[mask].mean()), float(errors[~mask].mean())
    random = np.random.default_rng(seed)
    as_bad = rounds = 0
    while rounds < ROUNDS and as_bad < ENOUGH_AS_BAD:
        drawn = random.permutation(count)[: inside.sum()]
        as_bad += bool(sums[drawn].sum() / sizes[drawn].sum() >= error - 1e-12)
        rounds += 1
    return Slice(column, value, int(mask.sum()), error, others, (as_bad + 1) / (rounds + 1))
