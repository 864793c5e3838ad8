"""Holds the model in use: finds it, proves it beside the old one, and only then swaps it in."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as TooLate
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rootstock.data.decode import DecodeLimits
from rootstock.errors import (
    BundleError,
    ConfigError,
    NoModelError,
    RootstockError,
    TrackingError,
)
from rootstock.integrations.mlflow.tracking import resolve_model_uri
from rootstock.model.bundle import ModelBundle, read_bundle
from rootstock.model.predictor import Predictor
from rootstock.ports.registry import ModelRegistry, RegistryEntry
from rootstock.service.daemon import start_daemon
from rootstock.service.http.problems import Problem
from rootstock.service.models.cache import ModelCache
from rootstock.system.files import sha256_file

Connect = Callable[[], ModelRegistry]
REFUSED_SECONDS = 300.0
"""A version that was refused is tried again after this: its files may have been mended."""

ADMIN_SECONDS = 10.0
"""How long who reloads or pins by hand waits for the registry."""

_log = logging.getLogger("rootstock.service")


class _SlowError(TrackingError):
    """The registry has not answered so far."""


@dataclass(frozen=True)
class Source:
    """What `model` says: a directory, or a name with an alias or a version."""

    directory: Path | None = None
    name: str = ""
    alias: str = ""
    version: str = ""

    def __str__(self) -> str:
        if self.directory is not None:
            return self.directory.resolve().name
        return f"models:/{self.name}" + (f"@{self.alias}" if self.alias else f"/{self.version}")


@dataclass(frozen=True)
class Refusal:
    """A model that was not swapped in, and why."""

    version: str
    reason: str
    at: float


def parse_source(model: str) -> Source:
    """Read a directory, models:/NAME@ALIAS or models:/NAME/VERSION.

    Raises:
        ConfigError: a models:/ address of another form.
    """
    if not model.startswith("models:"):
        if "@" in model and not Path(model).exists():
            raise ConfigError(
                f"there is no model directory {model}",
                hint=f"did you mean models:/{model}, of the registry?",
            )
        return Source(directory=Path(model))
    return Source(**resolve_model_uri(model)._asdict())


class ModelHolder:
    """The present Predictor, or none; ``connect`` opens the registry when one is needed.

    `refresh` blocks and may run in any thread; reading `predictor` never waits. A request keeps the
    Predictor it began with, so an old one ends when its last request does.

    Args:
        model: a directory, models:/NAME@ALIAS or models:/NAME/VERSION.
        cache: folder of downloaded versions.
        connect: returns the registry.
        limits: what is accepted as an image.
        engine: as for `Predictor`.
        retry_seconds: what clients are told to wait while there is no model.
        registry_seconds: how long the first look waits for a registry that does not answer if
            there is a model from before.
        told: called with "swapped" or "refused".
    """

    def __init__(
        self,
        model: str,
        *,
        cache: Path,
        connect: Connect,
        limits: DecodeLimits | None = None,
        engine: Any = "fastest",
        retry_seconds: float = 10.0,
        registry_seconds: float = 1.5,
        told: Callable[[str], None] = lambda _outcome: None,
    ) -> None:
        self.source = parse_source(model)
        self.registry_up = True
        self.refused: Refusal | None = None
        self.told = told
        slot = self.source.alias or self.source.version
        self._cache = ModelCache(cache, self.source.name, slot)
        self._connect = connect
        self._limits = limits or DecodeLimits()
        self._engine = engine
        self._retry_after = str(max(1, round(retry_seconds)))
        self._registry_seconds = registry_seconds
        self._predictor: Predictor | None = None
        self._previous = self._cache.previous()
        self._refused_state = ""
        self._mark: tuple[str, ...] = ()
        self._turn = threading.Lock()
        self._pinned = self._cache.pinned() if self.source.alias else ""

    @property
    def ready(self) -> bool:
        return self._predictor is not None

    @property
    def pinned(self) -> str:
        """The version that is served whatever the alias says; empty if the alias is followed."""
        return self._pinned

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
        """The first model: that of the registry, or else the last one that was served.

        Raises:
            RootstockError: there is no such model, or it is damaged or answers otherwise
                than when it was trained.
        """
        try:
            self.refresh(patience=self._registry_seconds)
        except (TrackingError, BundleError) as error:
            kept = self._cache.last() if self.source.name else None
            if kept is None:
                raise
            _log.warning("serving the last model that was good: %s", error.message)
            with self._turn:
                if self._predictor is None:  # nobody was faster
                    self._swap(kept.bundle, kept.name, kept.version, mark=kept.mark)
        return self.predictor

    def refresh(self, *, again: bool = False, patience: float | None = None) -> bool:
        """Look for another model than the one in use and swap it in; whether that was done.

        With ``again`` a version that was refused before is tried once more; ``patience`` bounds
        the seconds of waiting for the registry.
        Raises:
            RootstockError: there is no such model, the registry cannot be reached, or the model
                was refused; the one in use stays.
        """
        with self._turn:
            if self.source.directory is not None:
                return self._refresh_directory(self.source.directory, again=again)
            return self._follow(self._pinned, again=again, patience=patience)

    def pin(self, version: str) -> None:
        """Serve this version, whatever the alias says, until `unpin`; also after a restart.

        Raises:
            Problem: a directory is served, or a fixed version.
            RootstockError: the version cannot be served; the one in use stays.
        """
        if not self.source.alias:
            raise Problem("conflict", f"{self.source} is served, and it has no other versions.")
        with self._turn:
            self._follow(version, again=True, patience=ADMIN_SECONDS)
            # As the registry writes it: "02" is version 2.
            self._pinned = self.predictor.info["version"]
            self._cache.pin(self._pinned)

    def unpin(self) -> None:
        """Follow the alias again.

        Raises:
            RootstockError: what the alias names cannot be served; the pin stays.
        """
        if not self.source.alias:
            return
        with self._turn:
            self._follow("", again=True, patience=ADMIN_SECONDS)
            self._pinned = ""
            self._cache.pin("")

    def rollback(self) -> None:
        """Pin the version that was served before the present one; done twice it changes no more.

        Raises:
            Problem: there was none.
        """
        if not self._previous:
            raise Problem("conflict", "No other version was served before this one.")
        self.pin(self._previous)
        # Who asks again, not having heard the answer, must not get the bad version back.
        self._previous = ""
        self._cache.forget_previous()

    def _follow(self, pinned: str, *, again: bool, patience: float | None = None) -> bool:
        """Serve the version ``pinned``, or where that is empty what the alias names."""
        try:
            registry, entry = self._ask(pinned, patience)
        except (TrackingError, NoModelError) as error:
            kept = self._cache.kept(pinned) if pinned else None
            if kept is None or kept.mark == self._mark:
                raise
            # It was served before, so that it is known by more than its name.
            _log.warning("version %s is taken from disk: %s", pinned, error.message)
            self._swap(kept.bundle, kept.name, kept.version, mark=kept.mark)
            self._cache.remember(kept.version, kept.mark[-1], previous=self._previous)
            return True
        mark = (entry.name, entry.version, entry.run_id)
        if mark == self._mark:
            self.refused = None  # whatever was refused is not asked for any more
            return False
        if not again and self._was_refused(entry.version):
            return False
        try:
            self._swap(self._cache.fetch(registry, entry), entry.name, entry.version, mark=mark)
        except RootstockError as error:
            self._refuse(entry.version, error)
            raise
        self._cache.remember(entry.version, entry.run_id, previous=self._previous)
        return True

    def _refresh_directory(self, directory: Path, *, again: bool) -> bool:
        sums = directory / "checksums.json"
        digest = sha256_file(sums) if sums.is_file() else ""
        if self._predictor is not None and (digest,) == self._mark:
            self.refused = None
            return False
        # While it is being copied its files go on changing, and it is looked at again.
        state = _stamps(directory) if self.ready else ""
        if not again and self._was_refused(digest[:12]) and state == self._refused_state:
            return False
        try:
            self._swap(read_bundle(directory), "", "", mark=(digest,))
        except RootstockError as error:
            self._refuse(digest[:12], error)
            self._refused_state = state
            raise
        return True

    def _ask(self, pinned: str, patience: float | None) -> tuple[ModelRegistry, RegistryEntry]:
        ask = partial(self._ask_registry, pinned)
        try:
            found = ask() if patience is None else self._ask_within(ask, patience)
        except NoModelError:
            self.registry_up = True
            raise
        except _SlowError:
            raise  # it may only be slow: MLflow takes seconds to import
        except TrackingError:
            self.registry_up = False
            raise
        self.registry_up = True
        return found

    def _ask_registry(self, pinned: str) -> tuple[ModelRegistry, RegistryEntry]:
        registry = self._connect()
        alias = "" if pinned else self.source.alias
        version = pinned or self.source.version
        return registry, registry.find(self.source.name, alias=alias, version=version)

    def _ask_within(
        self, ask: Callable[[], tuple[ModelRegistry, RegistryEntry]], seconds: float
    ) -> tuple[ModelRegistry, RegistryEntry]:
        if self._cache.last() is None:
            return ask()  # nothing to serve instead
        try:
            return start_daemon(ask).result(timeout=seconds)
        except TooLate:
            raise _SlowError(
                f"the registry has not answered after {seconds:g} seconds; it is asked again"
            ) from None

    def _swap(self, bundle: ModelBundle, name: str, version: str, *, mark: tuple[str, ...]) -> None:
        """Prove the model beside the one in use, then put it in its place."""
        # One thread a forward pass: the service runs several passes at once.
        predictor = Predictor(
            bundle,
            engine=self._engine,
            threads=1,
            name=name,
            version=version,
            limits=self._limits,
        )
        difference = predictor.check_golden()
        batch = predictor.best_batch  # measured here, where nobody waits for it
        now = self._predictor
        before = now.info["version"] if now is not None else self._cache.version()
        if before and before != version:
            self._previous = before
        self._predictor, self._mark, self.refused = predictor, mark, None
        self.told("swapped")
        _log.info(
            "serving %s version %s with %s in batches of %d, golden images within %.1g",
            predictor.info["name"],
            predictor.info["version"],
            predictor.engine,
            batch,
            difference,
            extra={"milliseconds": predictor.milliseconds},
        )

    def _refuse(self, version: str, error: RootstockError) -> None:
        # NoModelError: its files are gone. Anything else may be the registry's fault, not its own.
        if isinstance(error, BundleError | NoModelError):
            self.refused = Refusal(version, self._without_folders(error.message), time.time())
            self.told("refused")
        stays = "the model in use stays" if self.ready else "there is no model yet"
        _log.error("version %s is refused, %s: %s", version, stays, error.message)

    def _without_folders(self, text: str) -> str:
        """Clients are told the names of files, not where they lie."""
        folder = self.source.directory or self._cache.home
        for place in (folder.resolve(), folder):
            text = text.replace(f"{place}/", "")
        return text

    def _was_refused(self, version: str) -> bool:
        """Refused of late; without any model there is nothing better to do than trying it again."""
        refused = self.refused
        return (
            refused is not None
            and self._predictor is not None
            and refused.version == version
            and time.time() - refused.at < REFUSED_SECONDS
        )


def _stamps(directory: Path) -> str:
    """What changes whenever a file in it does."""
    found = []
    for path in sorted(directory.rglob("*")):
        with suppress(OSError):  # it may vanish while it is looked at
            facts = path.stat()
            found.append(f"{path} {facts.st_size} {facts.st_mtime_ns}")
    return hashlib.sha256("\n".join(found).encode()).hexdigest()
