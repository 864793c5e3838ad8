"""Holds the model in use: finds it, fetches it, proves it, and only then hands it out."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rootstock.bundle import ModelBundle, read_bundle
from rootstock.data.decode import DecodeLimits
from rootstock.errors import BundleError
from rootstock.integrations.mlflow_tracking import resolve_model_uri
from rootstock.ports import ModelRegistry, RegistryEntry
from rootstock.predict import Predictor
from services.inference.problems import Problem

Connect = Callable[[], ModelRegistry]

_log = logging.getLogger("rootstock.service")


@dataclass(frozen=True)
class Source:
    """What `model` says: a directory, or a name with an alias or a version."""

    directory: Path | None = None
    name: str = ""
    alias: str = ""
    version: str = ""


def parse_source(model: str) -> Source:
    """Read a directory, models:/NAME@ALIAS or models:/NAME/VERSION.

    Raises:
        ConfigError: a models:/ address of another form.
    """
    if not model.startswith("models:"):
        return Source(directory=Path(model))
    return Source(**resolve_model_uri(model)._asdict())


class ModelHolder:
    """The present Predictor, or none; ``connect`` opens the registry when one is needed.

    Args:
        model: a directory, models:/NAME@ALIAS or models:/NAME/VERSION.
        cache: folder of downloaded versions.
        connect: returns the registry.
        limits: what is accepted as an image.
        retry_seconds: what clients are told to wait while there is no model.
    """

    def __init__(
        self,
        model: str,
        *,
        cache: Path,
        connect: Connect,
        limits: DecodeLimits | None = None,
        retry_seconds: float = 10.0,
    ) -> None:
        self.source = parse_source(model)
        self._cache = cache
        self._connect = connect
        self._limits = limits or DecodeLimits()
        self._retry_after = str(max(1, round(retry_seconds)))
        self._predictor: Predictor | None = None

    @property
    def ready(self) -> bool:
        return self._predictor is not None

    @property
    def predictor(self) -> Predictor:
        """The Predictor in use.

        Raises:
            Problem: there is none yet (503 with Retry-After).
        """
        if self._predictor is None:
            raise Problem(
                "no-model",
                "No model is loaded yet; /readyz answers 200 once there is one.",
                headers={"Retry-After": self._retry_after},
            )
        return self._predictor

    def load(self) -> Predictor:
        """Load and prove the model; blocking.

        Raises:
            RootstockError: there is no such model, or it is damaged or answers otherwise
                than when it was trained.
        """
        bundle, name, version = self._find()
        # One thread a forward pass: the service runs several passes at once.
        predictor = Predictor(bundle, threads=1, name=name, version=version, limits=self._limits)
        difference = predictor.check_golden()
        self._predictor = predictor
        _log.info(
            "serving %s version %s, golden images within %.1g",
            predictor.info["name"],
            predictor.info["version"],
            difference,
        )
        return predictor

    def _find(self) -> tuple[ModelBundle, str, str]:
        if self.source.directory is not None:
            return read_bundle(self.source.directory), "", ""
        registry = self._connect()
        entry = registry.find(
            self.source.name, alias=self.source.alias, version=self.source.version
        )
        return self._cached(registry, entry), entry.name, entry.version

    def _cached(self, registry: ModelRegistry, entry: RegistryEntry) -> ModelBundle:
        # The run id is part of the key: a registry made anew counts its versions from 1 again.
        home = self._cache / entry.name / f"{entry.version}-{entry.run_id or 'no-run'}"
        if entry.run_id and home.is_dir():
            try:
                return read_bundle(home)
            except BundleError as error:
                _log.warning("the cached model is damaged and is fetched again: %s", error.message)
        try:
            return _fetch(registry, entry, home)
        except OSError as error:
            raise BundleError(
                f"the model cannot be stored in {home}: {error.strerror or error}",
                hint="free some disk space or check the folder's permissions",
            ) from error


def _fetch(registry: ModelRegistry, entry: RegistryEntry, home: Path) -> ModelBundle:
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
