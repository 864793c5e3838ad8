"""Versions of a model on this machine's disk, and which of them was served last."""

from __future__ import annotations

import errno
import json
import logging
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootstock.errors import ArtifactError, BundleError, TrackingError
from rootstock.model.bundle import ModelBundle, read_bundle
from rootstock.ports.registry import RegistryEntry, RegistryReader, is_token
from rootstock.service.models.source import ModelIdentity
from rootstock.system.files import write_json

MAX_VERSIONS = 3
"""Versions of a name that stay on disk: the current, the previous, and the next one."""

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)
_log = logging.getLogger("rootstock.service")


@dataclass(frozen=True)
class CachedModel:
    """A complete model on disk that was served before."""

    bundle: ModelBundle
    identity: ModelIdentity


class ModelCache:
    """The versions of one model, each in a folder, and notes about what is served.

    Champion and challenger share the versions, but each has separate notes, named ``slot``.
    """

    def __init__(self, root: Path, name: str, slot: str) -> None:
        self.home = root / name
        self._name = name
        self._state = self.home / f"{slot}.json"

    def fetch(self, registry: RegistryReader, entry: RegistryEntry) -> ModelBundle:
        """Return the bundle of a version: from disk if it is complete there, or from the registry.

        Raises:
            BundleError: The bundle is damaged, or the disk has no room for it.
            TrackingError: The registry cannot be reached.
        """
        # The run id is part of the key: a new registry counts its versions from 1 again.
        home = self._folder(entry.version, entry.run_id)
        if entry.run_id and home.is_dir():
            try:
                return read_bundle(home)
            except BundleError as error:
                _log.warning("the cached model is damaged; downloading it again: %s", error.message)
        try:
            return _download(registry, entry, home)
        except (OSError, TrackingError) as error:
            cause: BaseException | None = error
            if isinstance(error, TrackingError):  # MLflow's client reports a full disk this way
                cause = error.__cause__
                if not isinstance(cause, OSError) or cause.errno not in DISK_ERRORS:
                    raise
            raise BundleError(
                f"the model cannot be stored in {home}: {getattr(cause, 'strerror', '') or cause}",
                hint="free some disk space or check the folder's permissions",
            ) from error

    def remember(self, identity: ModelIdentity, *, previous: str) -> None:
        """Note what is served now and remove old versions. A full disk is ignored."""
        with suppress(OSError, ArtifactError):
            self._write(
                {"version": identity.version, "run_id": identity.run_id, "previous": previous}
            )
            self._folder(identity.version, identity.run_id).touch()
            served = {self._last_folder(state) for state in self.home.glob("*.json")}
            homes = [path for path in self.home.iterdir() if path.is_dir()]
            homes = [path for path in homes if not path.name.startswith(".")]
            for path in sorted(homes, key=lambda path: path.stat().st_mtime)[:-MAX_VERSIONS]:
                if path not in served:
                    shutil.rmtree(path, ignore_errors=True)

    def last(self) -> CachedModel | None:
        """Return the model that was served last, if it is still complete."""
        state = _read(self._state)
        version, run_id = state.get("version", ""), state.get("run_id", "")
        if not version:
            return None
        try:
            return self._read_cached(version, run_id)
        except BundleError as error:
            _log.warning("the last model is damaged: %s", error.message)
            return None

    def find(self, version: str) -> CachedModel | None:
        """Return a complete version on disk; the newest one, if two registries had it."""
        if not is_token(version):
            return None
        folders = [path for path in self.home.glob(f"{version}-*") if path.is_dir()]
        for folder in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True):
            with suppress(BundleError):
                return self._read_cached(version, folder.name.partition("-")[2])
        return None

    def read_note(self, key: str) -> str:
        """Return the noted ``version`` (served last), ``previous``, or ``pinned``; may be empty."""
        return str(_read(self._state).get(key, ""))

    def note(self, **notes: str) -> None:
        """Note ``previous`` or ``pinned``. A full disk is ignored."""
        with suppress(OSError, ArtifactError):
            self._write(notes)

    def _read_cached(self, version: str, run_id: str) -> CachedModel:
        bundle = read_bundle(self._folder(version, run_id))
        return CachedModel(bundle, ModelIdentity(self._name, version, run_id))

    def _folder(self, version: str, run_id: str) -> Path:
        folder = self.home / f"{version}-{run_id or 'no-run'}"
        if not folder.resolve().is_relative_to(self.home.resolve()) or folder.parent != self.home:
            raise BundleError(f"version {version!r} of run {run_id!r} is outside the cache")
        return folder

    def _last_folder(self, state: Path) -> Path:
        tree = _read(state)
        return self._folder(tree.get("version", ""), tree.get("run_id", ""))

    def _write(self, change: dict[str, str]) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        write_json(self._state, _read(self._state) | change)


def _read(state: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        tree = json.loads(state.read_bytes())
        if isinstance(tree, dict):
            return tree
    return {}


def _download(registry: RegistryReader, entry: RegistryEntry, home: Path) -> ModelBundle:
    home.parent.mkdir(parents=True, exist_ok=True)
    # mkdtemp makes a folder of mode 700: no other user can change the model before the check.
    temporary = Path(tempfile.mkdtemp(prefix=".download-", dir=home.parent))
    try:
        directory = registry.download(entry, temporary / "model")
        read_bundle(directory)
        shutil.rmtree(home, ignore_errors=True)
        directory.replace(home)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return read_bundle(home)
