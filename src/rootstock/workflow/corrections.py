"""The labels of a project with corrections: the labels in force, and labels from files."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.label_corrections import (
    ORIGINAL,
    REMOVE,
    Correction,
    append_corrections,
    current,
    last_rows,
    locate_corrections,
    read_corrections_of,
    stamp_time,
)
from rootstock.data.manifest import REMOVED, ImageRow, Manifest
from rootstock.errors import DataError
from rootstock.review.label_files import Labelled
from rootstock.tasks import get_task
from rootstock.tasks.task import Task


class Imported(NamedTuple):
    """The result of importing labels from a file: added rows, and the others."""

    added: tuple[Correction, ...]
    n_unchanged: int
    unknown: tuple[str, ...]
    """Images of the file that are not in the data set."""


@dataclass(frozen=True)
class ProjectLabels:
    """The manifest of a project, and the corrections next to its images at ``root``."""

    root: Path
    manifest: Manifest
    corrections: tuple[Correction, ...]

    @classmethod
    def read(cls, config: Config, paths: Paths) -> ProjectLabels:
        """Read the manifest and the corrections.

        Raises:
            ArtifactError: there is no manifest; the stage `index` writes it.
            DataError: the corrections cannot be read.
        """
        root = paths.below(config.data.root)
        return cls(root, Manifest.read(paths.manifest), read_corrections_of(root))

    @property
    def path(self) -> Path:
        """The file of corrections."""
        return locate_corrections(self.root)

    @property
    def task(self) -> Task:
        return get_task(self.manifest.task)

    @cached_property
    def _in_force(self) -> dict[str, Correction]:
        return current(self.corrections)

    def original(self, row: ImageRow) -> str:
        """Return the label in the folders or the table."""
        return self.manifest.originals.get(row.path, row.target)

    def in_force(self, row: ImageRow) -> str:
        """Return the label with all corrections, or `REMOVE`, including those after the index."""
        correction = self._in_force.get(row.sha256)
        return correction.new if correction else self.original(row)

    def as_old(self, row: ImageRow) -> str:
        """Return the label in force as a correction's ``old``: `ORIGINAL` if it is in a file."""
        is_text = row.sha256 in self._in_force or self.task.corrects_texts
        return self.in_force(row) if is_text else ORIGINAL

    @property
    def images(self) -> list[ImageRow]:
        """Rows that can have a label: usable ones, and removed ones."""
        return [row for row in self.manifest.images if row.quarantine in ("", REMOVED)]

    @cached_property
    def paths(self) -> dict[str, list[str]]:
        """The paths of the images by their SHA-256."""
        paths = defaultdict(list)
        for row in self.images:
            paths[row.sha256].append(row.path)
        return dict(paths)

    def count_new(self, *, split: str = "") -> int:
        """Return how many images have another label than at the last index, or were added since.

        ``split``: only those of this split, in which images that were added count as well.
        """
        known = {row.sha256: row for row in self.images}
        count = 0
        for sha256 in last_rows(self.corrections):
            one, row = self._in_force.get(sha256), known.get(sha256)
            if row is None:  # an image that is gone, or was added: it had no label
                count += one is not None and not one.old
            elif row.split == split or not split:
                indexed = REMOVE if row.quarantine == REMOVED else row.target
                count += self.in_force(row) != indexed
        return count

    def labelled(self, *, only_corrected: bool) -> list[Labelled]:
        """Return the labels in force, without those of removed images."""
        return [
            Labelled(row.path, row.sha256, self.in_force(row), (row.width, row.height))
            for row in self.images
            if self.in_force(row) != REMOVE
            and not (only_corrected and self.in_force(row) == self.original(row))
        ]

    def add(self, labels: Sequence[Labelled], *, who: str, why: str) -> Imported:
        """Add a row for each image whose label differs from the one in force.

        Raises:
            DataError: a label is not valid for the task; nothing is added.
            ArtifactError: the file cannot be written.
        """
        finder = _ImageFinder(self.images)
        added: dict[str, Correction] = {}
        unknown, n_unchanged, when = [], 0, stamp_time()
        for one in labels:
            row = finder.find(one)
            if row is None:
                unknown.append(one.path or one.sha256)
                continue
            old = self.as_old(row)
            new = self._correct(row, one.label)
            if new == old or (new == ORIGINAL and row.sha256 not in self._in_force):
                n_unchanged += 1
            else:
                added[row.sha256] = Correction(row.sha256, old, new, who, when, why)
        append_corrections(self.path, list(added.values()))
        return Imported(tuple(added.values()), n_unchanged, tuple(unknown))

    def add_rows(self, rows: Sequence[Correction]) -> Imported:
        """Add the rows of another corrections file that are new.

        Raises:
            ArtifactError: the file cannot be written.
        """
        known = set(self.corrections)
        added = tuple(row for row in rows if row not in known)
        append_corrections(self.path, added)
        unknown = tuple(sorted({row.sha256 for row in added} - self.paths.keys()))
        return Imported(added, len(rows) - len(added), unknown)

    def _correct(self, row: ImageRow, label: str) -> str:
        if label in (ORIGINAL, REMOVE):
            return label
        try:
            return self.task.correct(self.original(row), label)
        except DataError as error:
            raise DataError(f"{row.path}: {error.message}", hint=error.hint) from None


class _ImageFinder:
    """Finds images by their SHA-256, their path, or a unique end of their path."""

    def __init__(self, rows: Sequence[ImageRow]) -> None:
        self._by_content = {row.sha256: row for row in rows}
        self._by_path = {row.path: row for row in rows}
        self._by_name: dict[str, list[ImageRow]] = defaultdict(list)
        for row in rows:
            self._by_name[PurePosixPath(row.path).name].append(row)

    def find(self, image: Labelled) -> ImageRow | None:
        """Return the image that another tool's label refers to; None if it is not certain."""
        if image.sha256:
            return self._by_content.get(image.sha256)
        # Label Studio writes URLs such as /data/local-files/?d=photos/ant/1.png
        path = unquote(image.path.rpartition("?d=")[2]).replace("\\", "/")
        if row := self._by_path.get(path):
            return row
        named = self._by_name.get(PurePosixPath(path).name, [])
        ending = [row for row in named if f"/{path}".endswith(f"/{row.path}")]
        some = ending or named
        return some[0] if len(some) == 1 else None


def open_labels(project: Path, data: Path | None = None) -> ProjectLabels:
    """Return the labels of the project in a folder; ``data`` replaces its `data.root`."""
    params = project / "params.yaml"
    overrides = [f"data.root={json.dumps(str(data.absolute()))}"] if data else []
    config = load_config(params if params.exists() else None, overrides=overrides)
    return ProjectLabels.read(config, Paths(project))
