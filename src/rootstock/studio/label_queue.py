"""The queue of what people should look at: labels in doubt, requests of the service, and a pool."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Literal

import numpy as np

from rootstock.data.manifest import ImageRow
from rootstock.errors import ArtifactError
from rootstock.evaluate.decisions import read_decisions
from rootstock.review.queue import (
    Item,
    QueueRow,
    list_disagreements,
    list_suspects,
    merge_queue,
)
from rootstock.studio.labels import LabelDesk
from rootstock.studio.pool import Pool
from rootstock.studio.production import Production
from rootstock.studio.project import Stamp, StudioProject, stamp_of
from rootstock.tasks.dataset import Dataset

MAX_QUEUE_IMAGES = 500
Source = Literal["all", "labels", "requests", "pool"]


class LabelQueue:
    """Joins the lists of all sources; images that a person has decided on are left out."""

    def __init__(
        self, project: StudioProject, desk: LabelDesk, pool: Pool, production: Production
    ) -> None:
        self._project, self._desk = project, desk
        self._pool, self._production = pool, production
        self._lock = threading.Lock()
        self._disagreements: tuple[tuple[Stamp, Stamp], list[Item]] | None = None

    def list_rows(self, source: Source) -> list[QueueRow]:
        """Return the images of a source that most need a look."""
        labels = self._desk.read()
        lists: list[list[Item]] = []
        if source in ("all", "labels"):
            with contextlib.suppress(ArtifactError):
                suspects = self._project.review.get().suspects
                lists.append(list_suspects(suspects, labels.source.images))
            lists.append(self._list_disagreements())
        in_data = labels.source.paths
        if source in ("all", "requests"):
            requests = self._production.list_requests(labels.task)
            lists.append([item for item in requests if item.sha256 not in in_data])
        if source in ("all", "pool"):
            lists.append([one for one in self._pool.list_items() if one.sha256 not in in_data])
        merged = merge_queue(*lists)
        return [row for row in merged if row.sha256 not in labels.corrected][:MAX_QUEUE_IMAGES]

    def find_stranger(self, digest: str) -> tuple[ImageRow, Path] | None:
        """Return an image that is not in the data, and the folder that it is in."""
        return self._pool.find(digest) or self._production.find_image(digest)

    def _list_disagreements(self) -> list[Item]:
        paths = self._project.paths
        stamps = (stamp_of(paths.manifest), stamp_of(paths.decisions))
        with self._lock:
            if self._disagreements is None or self._disagreements[0] != stamps:
                self._disagreements = (stamps, self._compare_decisions())
            return self._disagreements[1]

    def _compare_decisions(self) -> list[Item]:
        manifest = self._project.manifest.get()
        rows = manifest.rows("test")
        dataset = Dataset.of(manifest)
        try:
            decisions = read_decisions(self._project.paths.decisions, rows)
        except ArtifactError:
            return []  # the model was never evaluated, or on other images
        if not np.isfinite(decisions).all():
            return []
        targets = dataset.targets("test")
        return list_disagreements(dataset.task, dataset.names, rows, decisions, targets)
