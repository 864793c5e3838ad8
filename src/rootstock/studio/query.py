"""Select images: the combined filters of the grid, and the order of the result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rootstock.studio.feature_map import FeatureMap
from rootstock.studio.image_table import Coded, ImageTable

ORDERS = ("path", "doubt", "outlier", "smallest", "largest")
MAX_CORNERS = 400
"""Maximum corners of a lasso."""


@dataclass(frozen=True)
class Query:
    """Filters; an empty one matches all images. Values within one filter are alternatives."""

    terms: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    """Reason of quarantine; `any` for all quarantined images, `none` for the usable ones."""
    flags: tuple[str, ...] = ()
    """Marks such as doubt or outlier; an image must have all of them."""
    facts: tuple[tuple[str, str], ...] = ()
    """Columns of metadata and their values."""
    said: tuple[str, ...] = ()
    """The model's answer, for test images."""
    targets: tuple[str, ...] = ()
    """The whole label, as the evaluation has it."""
    picture: int | None = None
    min_side: int | None = None
    max_side: int | None = None
    text: str = ""
    """Part of the path."""
    order: str = "path"
    lasso: tuple[float, ...] = ()
    """Corners x, y, x, y, ... of a line on the map of ``method``, in 0..1."""
    method: str = "pca"

    def apply(self, table: ImageTable, found: FeatureMap | None = None) -> np.ndarray:
        """Return the numbers int64[M] of the images, in order; ``found`` is the map of a lasso."""
        mask = np.ones(len(table.rows), bool)
        if found is not None:
            corners = np.array(self.lasso).reshape(-1, 2)
            mask[:] = False
            mask[found.rows[inside_polygon(found.points, corners)]] = True
        if self.terms:
            mask &= _has_term(table, self.terms)
        if self.splits:
            mask &= table.split.matches(self.splits)
        if self.reasons:
            mask &= _has_reason(table.reason, self.reasons)
        nothing = np.zeros(len(table.rows), bool)
        for flag in self.flags:
            mask &= table.flags.get(flag, nothing)
        for column in dict.fromkeys(name for name, _ in self.facts):
            values = [value for name, value in self.facts if name == column]
            mask &= table.facts[column].matches(values) if column in table.facts else nothing
        if self.said:
            mask &= np.isin(
                np.arange(len(mask)), [n for n, name in table.said.items() if name in self.said]
            )
        if self.targets:
            mask &= np.array([row.target in self.targets for row in table.rows], bool)
        if self.picture is not None:
            mask &= table.picture == self.picture
        if self.min_side is not None:
            mask &= table.short_side >= self.min_side
        if self.max_side is not None:
            mask &= table.short_side <= self.max_side
        numbers = np.flatnonzero(mask)
        if self.text:
            wanted, rows = self.text.casefold(), table.rows
            numbers = np.array(
                [n for n in numbers.tolist() if wanted in rows[n].path.casefold()], np.int64
            )
        return self._sort(table, numbers)

    def _sort(self, table: ImageTable, numbers: np.ndarray) -> np.ndarray:
        if self.order in ("smallest", "largest"):
            sides = table.short_side[numbers]
            return numbers[np.argsort(-sides if self.order == "largest" else sides, kind="stable")]
        if self.order in ("doubt", "outlier"):
            doubts = [table.doubts.get(number) for number in numbers.tolist()]
            keys = [
                0.0 if one is None else one.confidence if self.order == "doubt" else one.distance
                for one in doubts
            ]
            return numbers[np.argsort(-np.array(keys), kind="stable")]
        return numbers


def _has_term(table: ImageTable, terms: tuple[str, ...]) -> np.ndarray:
    mask = np.zeros(len(table.rows), bool)
    for term in terms:
        mask[table.terms.get(term, np.zeros(0, np.int64))] = True
    return mask


def _has_reason(column: Coded, reasons: tuple[str, ...]) -> np.ndarray:
    mask = column.matches(reasons)
    if "any" in reasons:
        mask |= column.codes >= 0
    if "none" in reasons:
        mask |= column.codes < 0
    return mask


def count_facets(table: ImageTable, numbers: np.ndarray) -> dict[str, dict[str, int]]:
    """Return how many of these images each value of each filter would match."""
    mask = np.zeros(len(table.rows), bool)
    mask[numbers] = True
    terms = {term: int(mask[rows].sum()) for term, rows in table.terms.items()}
    flags = {flag: int((mask & has).sum()) for flag, has in table.flags.items()}
    return {
        "terms": dict(sorted(terms.items(), key=lambda item: (-item[1], item[0]))),
        "splits": table.split.count(numbers),
        "reasons": table.reason.count(numbers),
        "flags": {flag: count for flag, count in flags.items() if count},
        **{f"fact:{name}": column.count(numbers) for name, column in table.facts.items()},
    }


def inside_polygon(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return bool[N]: the points float[N,2] that are inside a polygon float[C,2].

    Even-odd rule: a point is inside if a ray from it crosses an odd number of sides.
    """
    x, y = points[:, 0], points[:, 1]
    inside = np.zeros(len(points), bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            crosses = (y1 > y) != (y2 > y)
            inside ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside
