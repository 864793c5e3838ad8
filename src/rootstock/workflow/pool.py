"""The images of a folder without labels that are most worth one, as a model sees them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rootstock.data.read import read_file
from rootstock.data.tree import scan_folder
from rootstock.errors import DataError, ImageError
from rootstock.model.predictor import Predictor
from rootstock.review.suggest import suggest_images

BATCH_IMAGES = 16


class PoolImage(NamedTuple):
    """An image of the folder that is worth a label; ``path`` is relative to the folder.

    ``uncertainty`` and ``distance`` are those of `Suggestion`, ``unknown`` and ``answer`` what the
    model says.
    """

    rank: int
    path: str
    sha256: str
    uncertainty: float
    distance: float
    unknown: bool
    answer: str


@dataclass
class PoolImages:
    """What a model makes of the images of a folder, each content once; batches are added.

    ``known`` are the SHA-256 of images that are not looked at, such as the training images, and
    ``n_known`` counts those and second copies; ``problems`` are files that cannot be used.
    """

    predictor: Predictor
    folder: Path
    known: Collection[str] = ()
    n_known: int = 0
    problems: list[str] = field(default_factory=list)
    files: list[tuple[str, str]] = field(default_factory=list)
    """Path and SHA-256 of each image."""
    sizes: list[int] = field(default_factory=list)
    """Bytes of each image."""
    _decisions: list[np.ndarray] = field(default_factory=list)
    _features: list[np.ndarray] = field(default_factory=list)

    def list_paths(self) -> tuple[list[Path], list[str]]:
        """Return the files to look at, in order, and warnings about what was passed over.

        Raises:
            DataError: the folder cannot be read, or has no images.
        """
        if not self.folder.is_dir():
            raise DataError(f"there is no folder {self.folder}", hint="name a folder of images")
        found, warnings = scan_folder(self.folder)
        if not found.n_images:
            raise DataError(f"{self.folder} contains no images", hint="name a folder of images")
        return [self.folder / path for path in sorted(found.paths())], warnings

    def read(self, paths: list[Path], on_batch: Callable[[int], None]) -> None:
        """Look at the files; ``on_batch`` is called with the number of those that are done."""
        seen = set(self.known)
        if trained := self.predictor.bundle.known_images:
            seen.update(image.sha256 for image in trained.images)
        for start in range(0, len(paths), BATCH_IMAGES):
            some = paths[start : start + BATCH_IMAGES]
            batch = []
            for path in some:
                try:
                    content = read_file(path, self.predictor.limits).content
                    digest = hashlib.sha256(content).hexdigest()
                    if digest in seen:
                        self.n_known += 1
                        continue
                    views = self.predictor.prepare(content)
                except ImageError as error:
                    self.problems.append(f"{path}: {error.message}")
                    continue
                seen.add(digest)
                self.files.append((os.path.relpath(path, self.folder), digest))
                self.sizes.append(len(content))
                batch.append(views)
            inferred = self.predictor.infer(batch)
            self._decisions.append(inferred.decisions)
            self._features.append(inferred.features.astype(np.float16))
            on_batch(len(some))

    def rank(self, count: int, labelled: Collection[str] = ()) -> list[PoolImage]:
        """Return at most ``count`` images, the most useful first.

        Those of the SHA-256 ``labelled`` have a label by now: what is like them counts less.
        """
        if not self.files:
            return []
        decisions, features = np.concatenate(self._decisions), np.concatenate(self._features)
        has_label = np.array([digest in labelled for _, digest in self.files], bool)
        rows = np.flatnonzero(~has_label)
        reference = self.predictor.bundle.reference
        known = [features[has_label], *([reference.features] if reference else [])]
        uncertainty = self.predictor.task.uncertainty(decisions[rows])
        chosen = suggest_images(
            features[rows], uncertainty, count=count, known=np.concatenate(known)
        )
        images = []
        for rank, one in enumerate(chosen, start=1):
            row = int(rows[one.row])
            answer = self.predictor.answer(decisions[row], features[row].astype(np.float32))
            path, digest = self.files[row]
            numbers = round(one.uncertainty, 4), round(one.distance, 4)
            images.append(
                PoolImage(rank, path, digest, *numbers, bool(answer.unknown), answer.text)
            )
        return images
