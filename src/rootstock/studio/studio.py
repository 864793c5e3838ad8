"""The state that all routes share: a project and its results so far."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rootstock.data.manifest import ImageRow
from rootstock.errors import ArtifactError, ConfigError, RootstockError
from rootstock.plan.ledger import read_ledger
from rootstock.review.record import DataReview
from rootstock.service.http.problems import Problem
from rootstock.studio.evaluation import Evaluations
from rootstock.studio.feature_map import FeatureMap, FeatureMaps
from rootstock.studio.image_table import ImageTable, build_table
from rootstock.studio.label_queue import LabelQueue
from rootstock.studio.labels import LabelDesk
from rootstock.studio.models import Models
from rootstock.studio.opinions import Opinions
from rootstock.studio.pipeline import PipelineWatch
from rootstock.studio.pipeline_run import PipelineRun
from rootstock.studio.pool import Pool
from rootstock.studio.production import Production
from rootstock.studio.project import Stamp, StudioProject, stamp_of
from rootstock.studio.query import Query
from rootstock.studio.refits import Refits
from rootstock.studio.settings import StudioSettings
from rootstock.studio.thumbnails import Thumbnails
from rootstock.workflow.advice import Advice, advise_run


class Studio:
    """One project, and what the studio has read and made from it.

    Raises:
        ConfigError: The settings name no project.
    """

    def __init__(self, settings: StudioSettings) -> None:
        self.settings = settings
        self.project = StudioProject(settings.project, settings.data)
        self.thumbnails = Thumbnails(self.project.cache / "thumbnails")
        self.maps = FeatureMaps(self.project.cache / "maps")
        self._lock = threading.Lock()
        self.desk = LabelDesk(self.project)
        self.opinions = Opinions(self.project.paths.model)
        self.evaluations = Evaluations(self.project)
        self.models = Models(self.project)
        self.refits = Refits(self.project)
        self.pipeline = PipelineWatch(self.project.paths)
        self.run = PipelineRun(self.project)
        self.production = Production(settings.service, settings.service_key, settings.journal)
        self.pool = Pool(self.opinions.open, self._list_known)
        self.queue = LabelQueue(self.project, self.desk, self.pool, self.production)
        self._table: tuple[tuple[Stamp, Stamp], ImageTable] | None = None
        self._marked: tuple[ImageTable, tuple[Stamp, Stamp], ImageTable] | None = None

    @property
    def table(self) -> ImageTable:
        """The images after the index and the review, marked if people corrected them.

        Raises:
            ArtifactError: There is no manifest, or it cannot be read.
            DataError: The corrections cannot be read.
        """
        paths = self.project.paths
        with self._lock:
            stamps = (stamp_of(paths.manifest), stamp_of(paths.review))
            if self._table is None or self._table[0] != stamps:
                manifest = self.project.manifest.get()
                self._table = (stamps, build_table(manifest, self.review))
            table = self._table[1]
            later = (self.desk.stamp, stamp_of(paths.decisions))
            if self._marked is None or self._marked[:2] != (table, later):
                self._marked = (table, later, self._mark(table))
            return self._marked[2]

    def _mark(self, table: ImageTable) -> ImageTable:
        labels = self.desk.read()
        flags = {
            name: table.mark(digests)
            for name, digests in (("corrected", labels.corrected), ("disputed", labels.disputed))
            if digests
        }
        said: dict[int, str] = {}
        with contextlib.suppress(ArtifactError):
            found = self.evaluations.get()
            if found.said:
                said = dict(
                    zip(table.positions([r.path for r in found.rows]), found.said, strict=True)
                )
                flags["wrong"] = np.zeros(len(table.rows), bool)
                flags["wrong"][list(said)] = found.wrong
        return replace(table, flags=table.flags | flags, said=said)

    def find_image(self, digest: str) -> tuple[ImageRow, Path, bool]:
        """Return an image by its SHA-256, its folder, and whether it is in the data.

        Raises:
            Problem: there is no such image in the data, the pool and the journal.
        """
        table = self.table
        number = table.find(digest)
        if number is not None:
            return table.rows[number], self.project.images, True
        if stranger := self.queue.find_stranger(digest):
            return (*stranger, False)
        raise Problem("not-found", "No image of the project has this hash. Load the page again.")

    def _list_known(self) -> tuple[set[str], set[str]]:
        """Return the SHA-256 of the images in the data, and of those that people labelled."""
        labels = self.desk.read()
        return {row.sha256 for row in labels.source.manifest.images}, set(labels.corrected)

    def read_map(self, method: str) -> FeatureMap:
        """Return the map of the features.

        Raises:
            ArtifactError: There are no features, or the method cannot be used.
        """
        index = self.project.features.get()
        return self.maps.get(self.table.rows, self.project.store, index, method)

    def select(self, filters: Query) -> np.ndarray:
        """Return the numbers of the images that match the filters."""
        table = self.table
        found = self.read_map(filters.method) if filters.lasso else None
        return filters.apply(table, found)

    @property
    def review(self) -> DataReview | None:
        """The data review; None if none can be read."""
        with contextlib.suppress(ArtifactError):
            return self.project.review.get()
        return None

    def advise(self) -> Advice:
        """Return whether a run of the whole pipeline pays, by the labels in force.

        Raises:
            ArtifactError: there is no plan, or it cannot be read.
        """
        project = self.project
        plan, settings = project.plan.get(), project.config.plan
        minutes = None
        with contextlib.suppress(ArtifactError):
            minutes = project.forecast.get()["minutes"]
        return advise_run(
            self.desk.read().source,
            project.profile.get(),
            plan,
            read_ledger(project.paths.lasting(settings.ledger)),
            shares=settings.shares,
            pinned=any(one.pinned for one in plan.reasons if one.choice == "strategy"),
            last_minutes=minutes,
        )

    def list_notes(self) -> list[dict[str, str]]:
        """Return warnings that people should see before they trust the pages."""
        return [note for check in (self._check_artifacts, self._check_disk) for note in check()]

    def _check_artifacts(self) -> Iterator[dict[str, str]]:
        project = self.project
        views: list[tuple[str, Callable[[], Any]]] = [
            ("index", project.manifest.get),
            ("assess", project.profile.get),
            ("assess", project.review.get),
            ("plan", project.plan.get),
        ]
        for stage, read in views:
            try:
                read()
            except RootstockError as error:
                yield {"stage": stage, "text": error.message, "todo": error.hint}
                return
        if not project.images.is_dir():
            yield {
                "stage": "index",
                "text": f"The images are missing from {project.images}.",
                "todo": "set data.root in params.yaml, or pass `rootstock studio --data FOLDER`",
            }
        review, content = project.review.get(), project.manifest.get().content_hash
        if review.data_hash != content:
            yield {
                "stage": "assess",
                "text": "The data review is older than the images.",
                "todo": "run the stage `assess` again: dvc repro assess, or rootstock train",
            }

    def _check_disk(self) -> Iterator[dict[str, str]]:
        if self.thumbnails.problem:
            yield {
                "stage": "studio",
                "text": f"Thumbnails are not stored, so pages are slow: {self.thumbnails.problem}",
                "todo": "free some disk space, or make the project's folder writable",
            }

    def check(self) -> None:
        """Reject a project in which nothing has run yet, at the start.

        Raises:
            ConfigError: There is neither params.yaml nor a manifest.
        """
        paths = self.project.paths
        if self.settings.pool is not None and not self.settings.pool.is_dir():
            raise ConfigError(
                f"there is no folder {self.settings.pool}",
                hint="--pool names a folder of images without labels",
            )
        if not (paths.root / "params.yaml").is_file() and not paths.manifest.is_file():
            raise ConfigError(
                f"{paths.root} is not a project: it has neither params.yaml nor "
                "artifacts/manifest.parquet",
                hint="pass the project's folder, or the folder that `rootstock train --out` wrote",
            )
