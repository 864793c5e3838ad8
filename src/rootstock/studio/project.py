"""A project as the studio reads it: artifacts, each read again when its file changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from rootstock.assess.profile import DatasetProfile
from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.label_corrections import Correction, read_corrections_of
from rootstock.data.layout import base_folder
from rootstock.data.manifest import Manifest
from rootstock.errors import ConfigError
from rootstock.plan.transfer_plan import TransferPlan
from rootstock.review.record import DataReview
from rootstock.system.files import read_json

T = TypeVar("T")
Stamp = tuple[int, ...]


class FileView(Generic[T]):
    """A file as parsed by ``read``, which runs again only if the file was replaced or changed."""

    def __init__(self, path: Path, read: Callable[[Path], T]) -> None:
        self.path = path
        self._read = read
        self._lock = threading.Lock()
        self._kept: tuple[Stamp, T] | None = None

    def get(self) -> T:
        """Return the content; raise whatever ``read`` raises."""
        with self._lock:
            stamp = stamp_of(self.path)
            if self._kept is None or self._kept[0] != stamp:
                self._kept = None  # the old content must not stay if the new one cannot be read
                self._kept = (stamp, self._read(self.path))
            return self._kept[1]

    def forget(self) -> None:
        """Read the file again at the next `get`."""
        with self._lock:
            self._kept = None


def stamp_of(path: Path) -> Stamp:
    """Return a text that changes with the file's content; empty if there is no file."""
    try:
        facts = path.stat()
    except OSError:
        return ()
    return (facts.st_mtime_ns, facts.st_size, facts.st_ino)


class StudioProject:
    """The files of the project in the folder ``root``.

    ``data`` is the folder or table of its images; None uses the one in params.yaml.

    Raises:
        ConfigError: The folder does not exist, or params.yaml is wrong.
    """

    def __init__(self, root: Path, data: Path | None = None) -> None:
        if not root.is_dir():
            raise ConfigError(
                f"folder {root} does not exist",
                hint="pass the folder of a project, which has params.yaml or artifacts/",
            )
        self.root = root.resolve()
        self.paths = Paths(self.root)
        self._data = data.resolve() if data else None
        self._config = FileView(self.root / "params.yaml", _read_config)
        _ = self.config
        paths = self.paths
        self.manifest = FileView(paths.manifest, Manifest.read)
        self.review = FileView(paths.review, DataReview.read)
        self.profile = FileView(paths.profile, DatasetProfile.read)
        self.plan = FileView(paths.plan, TransferPlan.read)
        self.features = self._json(paths.features, "features")
        self.metrics = self._json(paths.metrics, "evaluate")
        self.forecast = self._json(paths.forecast, "evaluate")

    @property
    def config(self) -> Config:
        """The current settings in params.yaml."""
        return self._config.get()

    @property
    def data(self) -> Path:
        """The folder or table of the images."""
        return self._data or self.paths.below(self.config.data.root)

    @property
    def images(self) -> Path:
        """The folder that the paths of the manifest are relative to."""
        return base_folder(self.data)

    def corrections(self) -> tuple[Correction, ...]:
        """Return the corrections next to the images.

        Raises:
            DataError: The file is not a corrections file.
        """
        return read_corrections_of(self.data)

    @property
    def store(self) -> Path:
        """The folder of the feature store."""
        return self.paths.lasting(self.config.features.store)

    @property
    def cache(self) -> Path:
        """The folder of files that the studio makes once and keeps."""
        return self.paths.home / ".rootstock"

    @staticmethod
    def _json(path: Path, made_by: str) -> FileView[dict[str, Any]]:
        return FileView(path, partial(read_json, made_by=made_by))


def _read_config(path: Path) -> Config:
    return load_config(path if path.is_file() else None)
