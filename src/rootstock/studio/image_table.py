"""The images of a project as columns, for filtering, counting, and sorting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rootstock.data.manifest import ImageRow, Manifest
from rootstock.errors import DataError
from rootstock.review.findings import MIN_CLASS_IMAGES
from rootstock.review.record import DataReview
from rootstock.tasks import get_task
from rootstock.tasks.task import Task

MAX_FACT_VALUES = 50
"""Columns of metadata with more values, such as an id, are not filters."""
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Coded:
    """A column of texts: row ``i`` has ``names[codes[i]]``, or none if the code is -1."""

    names: tuple[str, ...]
    codes: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str]) -> Coded:
        """Return the column of these texts; an empty text counts as none."""
        names = sorted(set(texts) - {""})
        numbers = {name: number for number, name in enumerate(names)} | {"": -1}
        return cls(tuple(names), np.array([numbers[text] for text in texts], np.int32))

    def matches(self, wanted: Iterable[str]) -> np.ndarray:
        """Return bool[N]: the rows that have one of these texts."""
        numbers = [self.names.index(text) for text in wanted if text in self.names]
        return np.isin(self.codes, numbers)

    def count(self, rows: np.ndarray) -> dict[str, int]:
        """Return how many of these rows have each text, most frequent first."""
        codes, counts = np.unique(self.codes[rows], return_counts=True)
        pairs = zip(codes.tolist(), counts.tolist(), strict=True)
        counted = {self.names[code]: count for code, count in pairs if code >= 0}
        return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True)
class Doubt:
    """The data review's opinion on an image: a wrong-looking label, or unlike all others."""

    suggested: str = ""
    confidence: float = 0.0
    distance: float = 0.0


@dataclass(frozen=True, eq=False)
class ImageTable:
    """All images of a manifest, including quarantined ones, with the review's findings.

    ``terms`` are the names in an image's target: its class, each of its labels, or none.
    """

    rows: tuple[ImageRow, ...]
    task: str
    stratum: Coded
    split: Coded
    reason: Coded
    terms: dict[str, np.ndarray]
    facts: dict[str, Coded]
    flags: dict[str, np.ndarray]
    doubts: dict[int, Doubt]
    picture: np.ndarray
    short_side: np.ndarray
    by_digest: dict[str, int] = field(repr=False)
    by_path: dict[str, int] = field(repr=False)
    said: dict[int, str] = field(default_factory=dict, repr=False)
    """The model's answers on the test images, by number."""

    def find(self, digest: str) -> int | None:
        """Return the number of the image with this SHA-256; None if there is none."""
        return self.by_digest.get(digest) if _DIGEST.fullmatch(digest) else None

    def mark(self, digests: Iterable[str]) -> np.ndarray:
        """Return bool[N]: the images that have one of these SHA-256."""
        wanted = set(digests)
        return np.array([row.sha256 in wanted for row in self.rows], bool)

    def positions(self, paths: Iterable[str]) -> list[int]:
        """Return the numbers of images by path; unknown paths are left out."""
        return [self.by_path[path] for path in paths if path in self.by_path]


def build_table(manifest: Manifest, review: DataReview | None) -> ImageTable:
    """Return the columns of a manifest; without a review no image is in doubt."""
    rows = manifest.images
    usable = np.array([not row.quarantine for row in rows], bool)
    picture = np.array([row.picture for row in rows], np.int64)
    by_path = {row.path: number for number, row in enumerate(rows)}
    by_digest: dict[str, int] = {}
    for number, row in enumerate(rows):
        if row.sha256:
            by_digest.setdefault(row.sha256, number)
    table = ImageTable(
        rows=rows,
        task=manifest.task,
        stratum=Coded.of([row.stratum for row in rows]),
        split=Coded.of(["" if row.quarantine else row.split for row in rows]),
        reason=Coded.of([row.quarantine for row in rows]),
        terms=_index_terms(rows, manifest.task),
        facts=_read_facts(rows),
        flags={},
        doubts={},
        picture=picture,
        short_side=np.array([min(row.width, row.height) for row in rows], np.int64),
        by_digest=by_digest,
        by_path=by_path,
    )
    table.flags.update(_mark_copies(rows, usable, picture))
    table.flags["scarce"] = _mark_scarce(table, usable)
    if review is not None:
        _mark_review(table, review)
    return table


def _index_terms(rows: Sequence[ImageRow], task: str) -> dict[str, np.ndarray]:
    numbers: dict[str, list[int]] = {}
    owner = get_task(task)
    known: dict[str, tuple[str, ...]] = {}
    for number, row in enumerate(rows):
        if row.quarantine:
            continue
        if row.target not in known:
            known[row.target] = read_labels(owner, row.target)
        for term in known[row.target]:
            numbers.setdefault(term, []).append(number)
    return {term: np.array(found, np.int64) for term, found in sorted(numbers.items())}


def read_labels(task: Task, target: str) -> tuple[str, ...]:
    """Return the names in a target that people filter by; none if it has no names."""
    try:
        return task.annotate(target).labels
    except DataError:  # a task without a public form of its labels
        return ()


def _read_facts(rows: Sequence[ImageRow]) -> dict[str, Coded]:
    if not any(row.metadata for row in rows):
        return {}
    facts = [row.facts for row in rows]
    columns = {name: Coded.of([fact.get(name, "") for fact in facts]) for name in facts[0]}
    return {name: one for name, one in columns.items() if 1 < len(one.names) <= MAX_FACT_VALUES}


def _mark_copies(
    rows: Sequence[ImageRow], usable: np.ndarray, picture: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the images that are copies, copies with other labels, and copies across splits."""
    flags = {name: np.zeros(len(rows), bool) for name in ("copies", "conflict", "leak")}
    _, inverse, counts = np.unique(
        np.where(usable, picture, -1), return_inverse=True, return_counts=True
    )
    members: dict[int, list[int]] = {}
    for number in np.flatnonzero(usable & (counts[inverse] > 1)).tolist():
        members.setdefault(int(picture[number]), []).append(number)
    for group in members.values():
        flags["copies"][group] = True
        flags["conflict"][group] = len({rows[number].target for number in group}) > 1
        flags["leak"][group] = len({rows[number].split for number in group}) > 1
    return flags


def _mark_scarce(table: ImageTable, usable: np.ndarray) -> np.ndarray:
    in_training = np.flatnonzero(usable & table.split.matches(["train"]))
    counts = table.stratum.count(in_training)
    scarce = [name for name in table.stratum.names if counts.get(name, 0) < MIN_CLASS_IMAGES]
    return usable & table.stratum.matches(scarce)


def _mark_review(table: ImageTable, review: DataReview) -> None:
    flags = {name: np.zeros(len(table.rows), bool) for name in ("doubt", "outlier", "burst")}
    for suspect in review.suspects:
        for number in table.positions([suspect.path]):
            flags["doubt"][number] = True
            table.doubts[number] = Doubt(suspect.suggested, suspect.confidence)
    for outlier in review.outliers:
        for number in table.positions([outlier.path]):
            flags["outlier"][number] = True
            known = table.doubts.get(number, Doubt())
            table.doubts[number] = Doubt(known.suggested, known.confidence, outlier.score)
    for burst in review.bursts:
        flags["burst"][table.positions(burst.paths)] = True
    table.flags.update(flags)
