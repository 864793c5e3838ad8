"""A folder of images without labels, ranked by how much a label of each would teach the model."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from rootstock.data.manifest import ImageRow
from rootstock.model.predictor import Predictor
from rootstock.review.queue import Item
from rootstock.studio.work import find_problem
from rootstock.workflow.pool import PoolImage, PoolImages

RANKED_IMAGES = 50
"""As many as `rootstock suggest` lists; with their labels the rest is ranked again."""

_log = logging.getLogger("rootstock.studio")


class Pool:
    """Looks at one folder at a time, in a thread.

    ``open_model`` returns the model, and ``list_known`` the SHA-256 of images that are in the data,
    and of those that people have labelled.
    """

    def __init__(
        self,
        open_model: Callable[[], Predictor],
        list_known: Callable[[], tuple[Collection[str], Collection[str]]],
    ) -> None:
        self._open_model, self._list_known = open_model, list_known
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._images: PoolImages | None = None
        self._ranked: list[PoolImage] = []
        self._rows: dict[str, ImageRow] = {}
        self._work = False
        self._done, self._total = 0, 0
        self._problem: dict[str, str] | None = None

    def describe(self) -> dict[str, Any]:
        """Return the folder, how far the work on it is, and what could not be read."""
        with self._lock:
            return {
                "folder": str(self._folder or ""),
                "working": self._work,
                "done": self._done,
                "total": self._total,
                "images": len(self._rows),
                "ranked": len(self._ranked),
                "problem": self._problem,
                "unusable": len(self._images.problems) if self._images else 0,
            }

    def choose(self, folder: Path) -> dict[str, Any]:
        """Look at the images of a folder and rank them; unless another one is looked at."""
        return self._begin(folder, again=True)

    def rank(self) -> dict[str, Any]:
        """Rank the images that have no label yet."""
        return self._begin(self._folder, again=False) if self._folder else self.describe()

    def list_items(self) -> list[Item]:
        """Return the images that were chosen, the most useful first."""
        with self._lock:
            return [
                Item(one.sha256, one.path, "not labelled", score=one.uncertainty)
                for one in self._ranked
            ]

    def find(self, digest: str) -> tuple[ImageRow, Path] | None:
        """Return an image of the folder and the folder; None if there is no such image."""
        with self._lock:
            row = self._rows.get(digest)
            return (row, self._folder) if row and self._folder else None

    def _begin(self, folder: Path, *, again: bool) -> dict[str, Any]:
        with self._lock:
            if not self._work:
                self._work, self._problem, self._done = True, None, 0
                threading.Thread(target=self._run, args=(folder, again), daemon=True).start()
        return self.describe()

    def _run(self, folder: Path, again: bool) -> None:
        failed = "The images could not be ranked."
        problem = find_problem(lambda: self._look(folder, again), failed=failed)
        with self._lock:
            self._work, self._problem = False, problem

    def _look(self, folder: Path, again: bool) -> None:
        predictor = self._open_model()
        in_data, labelled = self._list_known()
        images = self._images
        if again or images is None or images.predictor is not predictor:
            images = PoolImages(predictor, folder, frozenset(in_data))
            paths, warnings = images.list_paths()
            for warning in warnings:
                _log.warning("warning: %s", warning)
            with self._lock:
                self._total = len(paths)
            images.read(paths, self._count)
        ranked = images.rank(RANKED_IMAGES, labelled)
        rows = {
            digest: make_row(path, digest, size)
            for (path, digest), size in zip(images.files, images.sizes, strict=True)
        }
        with self._lock:
            self._folder, self._images, self._ranked, self._rows = folder, images, ranked, rows

    def _count(self, number: int) -> None:
        with self._lock:
            self._done += number


def make_row(path: str, digest: str, size: int) -> ImageRow:
    """Return an image that is not in the data as a row of a manifest, without a label."""
    return ImageRow(path, digest, size, 0, 0, "", "", "", "", "", 0, "")
