"""Versions of models on this machine's disk, and which of them was served last."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootstock.errors import ArtifactError, BundleError
from rootstock.model.bundle import ModelBundle, read_bundle
from rootstock.ports.registry import ModelRegistry, RegistryEntry
from rootstock.system.files import write_json

KEPT = 3
"""Versions of a name that stay on disk: the present one, the one before, and one to come."""

_log = logging.getLogger("rootstock.service")


@dataclass(frozen=True)
class Kept:
    """A model that was served before, checked anew."""

    bundle: ModelBundle
    name: str
    version: str
    mark: tuple[str, ...]


class ModelCache:
    """The versions of one model, a folder each; ``slot`` tells whose notes are kept beside them.

    Champion and challenger share the versions, never the notes.
    """

    def __init__(self, root: Path, name: str, slot: str) -> None:
        self.home = root / name
        self._name = name
        self._state = self.home / f"{slot}.json"

    def fetch(self, registry: ModelRegistry, entry: RegistryEntry) -> ModelBundle:
        """The bundle of a version, from disk if it is there and whole, else from the registry.

        Raises:
            BundleError: it is damaged, or there is no room for it.
            TrackingError: the registry cannot be reached.
        """
        # The run id is part of the key: a registry made anew counts its versions from 1 again.
        home = self._folder(entry.version, entry.run_id)
        if entry.run_id and home.is_dir():
            try:
                return read_bundle(home)
            except BundleError as error:
                _log.warning("the cached model is damaged and is fetched again: %s", error.message)
        try:
            return _download(registry, entry, home)
        except OSError as error:
            raise BundleError(
                f"the model cannot be stored in {home}: {error.strerror or error}",
                hint="free some disk space or check the folder's permissions",
            ) from error

    def remember(self, version: str, run_id: str, *, previous: str) -> None:
        """Note what is served now, and drop versions of long ago; a full disk is no failure."""
        with suppress(OSError, ArtifactError):
            self._write({"version": version, "run_id": run_id, "previous": previous})
            self._folder(version, run_id).touch()
            noted = {self._last_folder(state) for state in self.home.glob("*.json")}
            homes = [path for path in self.home.iterdir() if path.is_dir()]
            homes = [path for path in homes if not path.name.startswith(".")]
            for path in sorted(homes, key=lambda path: path.stat().st_mtime)[:-KEPT]:
                if path not in noted:
                    shutil.rmtree(path, ignore_errors=True)

    def last(self) -> Kept | None:
        """The model that was served last, if it is still whole."""
        state = _read(self._state)
        version, run_id = state.get("version", ""), state.get("run_id", "")
        if not version:
            return None
        try:
            return self._read_kept(version, run_id)
        except BundleError as error:
            _log.warning("the last model is damaged: %s", error.message)
            return None

    def kept(self, version: str) -> Kept | None:
        """A version that is on disk and whole; the newest, if a registry made anew has it twice."""
        found = [path for path in self.home.glob(f"{version}-*") if path.is_dir()]
        for folder in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
            with suppress(BundleError):
                return self._read_kept(version, folder.name.partition("-")[2])
        return None

    def version(self) -> str:
        """The version that was served last; empty where none is known."""
        return str(_read(self._state).get("version", ""))

    def previous(self) -> str:
        """The version that was served before the last one; empty where none is known."""
        return str(_read(self._state).get("previous", ""))

    def forget_previous(self) -> None:
        """The version before is the one that is served now."""
        with suppress(OSError, ArtifactError):
            self._write({"previous": ""})

    def pinned(self) -> str:
        """The version that was pinned by hand; empty for none."""
        return str(_read(self._state).get("pinned", ""))

    def pin(self, version: str) -> None:
        """Note the pinned version; empty for none."""
        with suppress(OSError, ArtifactError):
            self._write({"pinned": version})

    def _read_kept(self, version: str, run_id: str) -> Kept:
        bundle = read_bundle(self._folder(version, run_id))
        return Kept(bundle, self._name, version, (self._name, version, run_id))

    def _folder(self, version: str, run_id: str) -> Path:
        return self.home / f"{version}-{run_id or 'no-run'}"

    def _last_folder(self, state: Path) -> Path:
        noted = _read(state)
        return self._folder(noted.get("version", ""), noted.get("run_id", ""))

    def _write(self, change: dict[str, str]) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        write_json(self._state, _read(self._state) | change)


def _read(state: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(state.read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def _download(registry: ModelRegistry, entry: RegistryEntry, home: Path) -> ModelBundle:
    home.parent.mkdir(parents=True, exist_ok=True)
    # mkdtemp's folder is ours alone (mode 700): nobody swaps the model before it is checked.
    fresh = Path(tempfile.mkdtemp(prefix=".download-", dir=home.parent))
    try:
        fetched = registry.download(entry, fresh / "model")
        read_bundle(fetched)
        shutil.rmtree(home, ignore_errors=True)
        fetched.replace(home)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return read_bundle(home)
