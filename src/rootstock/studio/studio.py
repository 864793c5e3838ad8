"""Studio: what all routes share, a project and what was made of it so far."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from rootstock.errors import ArtifactError, ConfigError, RootstockError
from rootstock.review.record import DataReview
from rootstock.studio.feature_map import FeatureMaps
from rootstock.studio.image_table import ImageTable, build_table
from rootstock.studio.project import Stamp, StudioProject, stamp_of
from rootstock.studio.settings import StudioSettings
from rootstock.studio.thumbnails import Thumbnails

COMMAND = "rootstock train or dvc repro"


class Studio:
    """One project and what the studio has read and made of it.

    Raises:
        ConfigError: the settings name no project.
    """

    def __init__(self, settings: StudioSettings) -> None:
        self.settings = settings
        self.project = StudioProject(settings.project, settings.data)
        self.thumbnails = Thumbnails(self.project.cache / "thumbnails")
        self.maps = FeatureMaps(self.project.cache / "maps")
        self._lock = threading.Lock()
        self._table: tuple[tuple[Stamp, Stamp], ImageTable] | None = None

    @property
    def table(self) -> ImageTable:
        """The images as the index and the review left them.

        Raises:
            ArtifactError: there is no manifest, or it cannot be read.
        """
        paths = self.project.paths
        with self._lock:
            stamps = (stamp_of(paths.manifest), stamp_of(paths.review))
            if self._table is None or self._table[0] != stamps:
                manifest = self.project.manifest.get()
                self._table = (stamps, build_table(manifest, self.review))
            return self._table[1]

    @property
    def review(self) -> DataReview | None:
        """The data review; None if there is none that can be read."""
        with contextlib.suppress(ArtifactError):
            return self.project.review.get()
        return None

    def list_notes(self) -> list[dict[str, str]]:
        """Return what people should know of the project before they trust the pages."""
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
                "text": f"The images are not in {project.images}.",
                "todo": "set data.root in params.yaml, or start `rootstock studio --data FOLDER`",
            }
        review, content = project.review.get(), project.manifest.get().content_hash
        if review.data_hash != content:
            yield {
                "stage": "assess",
                "text": "The data review is of an earlier state of the images.",
                "todo": "run the stage `assess` again: dvc repro assess, or rootstock train",
            }

    def _check_disk(self) -> Iterator[dict[str, str]]:
        if self.thumbnails.problem:
            yield {
                "stage": "studio",
                "text": f"Thumbnails are not kept, so pages are slow: {self.thumbnails.problem}",
                "todo": "free some disk space, or make the project's folder writable",
            }

    def check(self) -> None:
        """Refuse a project in which nothing has run yet, at the start.

        Raises:
            ConfigError: there is neither params.yaml nor a manifest.
        """
        paths = self.project.paths
        if not (paths.root / "params.yaml").is_file() and not paths.manifest.is_file():
            raise ConfigError(
                f"{paths.root} is not a project: it has neither params.yaml nor "
                "artifacts/manifest.parquet",
                hint="name the project's folder, or what `rootstock train --out` wrote",
            )
