"""The model in use. A new model is proved first, and only then swapped in."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rootstock.data.limits import DecodeLimits
from rootstock.errors import BundleError, NoModelError, RootstockError, TrackingError
from rootstock.model.bundle import ModelBundle
from rootstock.model.predictor import Predictor
from rootstock.service.models.cache import ModelCache
from rootstock.service.models.proof import (
    ProofLimits,
    Refusal,
    find_records,
    hide_folder,
    log_opened,
    open_proved,
)
from rootstock.service.models.source import AvailableModel, Connect, ModelIdentity, ModelSource
from rootstock.service.models.waits import Downloads, NotLoadedError, SlowError, call_within

RETRY_REFUSED_SECONDS = 300.0
"""Time until a rejected version is tried again: its files may have been repaired."""
ADMIN_SECONDS = 10.0
"""How long an operator's reload, pin, or rollback waits for the registry and a download."""
_log = logging.getLogger("rootstock.service")


class _Order(NamedTuple):
    """Whether a change pins its model or ends the pin; ``after``: the last order it has seen."""

    pin: bool | None = None
    after: int | None = None


class ModelHolder:
    """Holds the Predictor in use, or none.

    `refresh` blocks and may run in any thread; reading `predictor` never waits. A request keeps the
    Predictor it began with, so an old one ends with its last request. Finding, fetching, and
    proving a model take no lock: an operator's order does not wait for another change. A change
    that began before the order and ends after it is dropped.

    Args:
        model: a directory, models:/NAME@ALIAS or models:/NAME/VERSION.
        cache: folder of downloaded versions.
        connect: opens the registry; called only for a registered model.
        limits: derives image limits from a model's own; None keeps the model's.
        engine, precision: as for `Predictor`.
        proof: limits for proving a model in a separate process; None proves it in this one. The
            proofs of this machine are kept in the cache.
        name: name of a model served from a directory; empty uses the directory's name.
        retry_seconds: how long clients should wait while no model is loaded.
        registry_seconds: how long the first check waits if an earlier model can be served.
        on_swap: called with "swapped" or "refused".
    """

    def __init__(
        self,
        model: str,
        *,
        cache: Path,
        connect: Connect,
        limits: Callable[[DecodeLimits], DecodeLimits] | None = None,
        engine: Any = "fastest",
        precision: Any = "auto",
        proof: ProofLimits | None = None,
        name: str = "",
        retry_seconds: float = 10.0,
        registry_seconds: float = 1.5,
        on_swap: Callable[[str], None] = lambda _outcome: None,
    ) -> None:
        self.source = ModelSource.parse(model)
        self.registry_up = True
        self.refused: Refusal | None = None
        self.on_swap = on_swap
        self._cache = ModelCache(cache, self.source.name, self.source.alias or self.source.version)
        self._connect = connect
        self._limits = limits or (lambda own: own)
        self._engine, self._precision = engine, precision
        self._proof = proof
        self._records = find_records(cache, self.source.directory)
        self._name = name
        self._retry_seconds = max(1, round(retry_seconds))
        self._registry_seconds = registry_seconds
        self._predictor: Predictor | None = None
        self._identity: ModelIdentity | None = None
        self._previous = self._cache.read_note("previous")
        self._refused_state = ""
        self._pinned = self._cache.read_note("pinned") if self.source.alias else ""
        self._downloads = Downloads()
        self._orders = 0
        self._turn = threading.Lock()

    @property
    def ready(self) -> bool:
        return self._predictor is not None

    @property
    def pinned(self) -> str:
        """The pinned version, which is served whatever the alias says; empty if none is pinned."""
        return self._pinned

    @property
    def predictor(self) -> Predictor:
        """The Predictor in use.

        Raises:
            NotLoadedError: No model is loaded yet.
        """
        if self._predictor is None:
            raise NotLoadedError(self._retry_seconds)
        return self._predictor

    def load(self) -> Predictor:
        """Return the first model: the source's, or the last one that was served.

        Raises:
            RootstockError: There is no such model, it is damaged, or it fails its golden images.
        """
        earlier = self._cache.last() if self.source.name else None
        try:
            # Without a model to serve instead, the registry gets all the time it needs.
            self.refresh(wait_seconds=self._registry_seconds if earlier else None)
        except (TrackingError, BundleError) as error:
            if earlier is None:
                raise
            _log.warning("serving the last known good model: %s", error.message)
            if self._predictor is None:  # no other thread was faster
                self._settle(
                    earlier.identity, self._prove(earlier.bundle, earlier.identity), _Order()
                )
        return self.predictor

    def refresh(self, *, again: bool = False, wait_seconds: float | None = None) -> bool:
        """Look for another model than the one in use; return whether it was swapped in.

        ``again`` also tries a version that was rejected before. ``wait_seconds`` limits the wait
        for the registry and, with ``again``, for a download, which continues afterwards.
        Raises:
            RootstockError: There is no such model, the registry cannot be reached, or the model
                was rejected. The one in use stays.
        """
        order = _Order(after=self._orders)
        return self._follow(self._pinned, again, wait_seconds, order)

    def pin(self, version: str) -> None:
        """Serve this version, whatever the alias says, until `unpin`; also after a restart.

        Raises:
            RootstockError: The source is a directory or a fixed version, or the version cannot be
                served. The model in use stays.
        """
        if not self.source.alias:
            raise RootstockError(f"cannot pin: {self.source} has no other versions")
        self._follow(version, True, ADMIN_SECONDS, _Order(pin=True))

    def unpin(self) -> None:
        """Follow the alias again.

        Raises:
            RootstockError: The alias's version cannot be served; the pin stays.
        """
        if self.source.alias:
            self._follow("", True, ADMIN_SECONDS, _Order(pin=False))

    def rollback(self) -> None:
        """Pin the version that was served before this one. Repeating the call has no effect.

        Raises:
            RootstockError: No version was served before, or it cannot be served.
        """
        version = self._previous
        if not version:
            raise RootstockError("no other version was served before this one")
        # From disk, if possible: a registry that hangs is a reason to roll back.
        cached = self._cache.find(version)
        if cached is None:
            self.pin(version)
        else:
            self._take(
                AvailableModel(cached.identity, lambda: cached.bundle), None, _Order(pin=True)
            )
        # An operator who missed the answer may ask again, and must not get the bad version back.
        self._previous = ""
        self._cache.note(previous="")

    def _follow(self, pinned: str, again: bool, wait_seconds: float | None, order: _Order) -> bool:
        """Serve the version ``pinned``, or the source's current model if it is empty."""
        start = time.monotonic()
        try:
            model = self._look(pinned, wait_seconds)
        except TrackingError as error:
            cached = self._cache.find(pinned) if pinned else None
            if cached is None or (order.pin is None and cached.identity == self._identity):
                raise
            _log.warning("version %s is served from disk: %s", pinned, error.message)
            model = AvailableModel(cached.identity, lambda: cached.bundle)
        if not again and self.ready and self._was_refused(model.identity.label, model.state()):
            return False
        seconds = None
        if again and wait_seconds is not None:
            seconds = max(0.1, wait_seconds - (time.monotonic() - start))
        return self._take(model, seconds, order)

    def _look(self, pinned: str, wait_seconds: float | None) -> AvailableModel:
        look = partial(self.source.look, self._connect, self._cache.fetch, pinned)
        try:
            model = call_within(wait_seconds if self.source.name else None, look)
        except SlowError:
            raise  # it may just be slow: importing MLflow takes seconds
        except TrackingError as error:
            self.registry_up = isinstance(error, NoModelError)
            raise
        self.registry_up = True
        return model

    def _take(self, model: AvailableModel, seconds: float | None, order: _Order) -> bool:
        """Fetch and prove ``model`` unless it is in use; return whether it was swapped in."""
        if model.identity == self._identity:
            self.refused = None  # the rejected version is no longer wanted
            return self._settle(model.identity, None, order)
        # A directory that is being copied still changes; it is tried again.
        state = model.state() if self.ready else ""
        try:
            bundle = self._downloads.fetch(model, seconds)
            predictor = self._prove(bundle, model.identity)
        except SlowError:
            raise
        except RootstockError as error:
            self._refuse(model.identity.label, error, state)
            raise
        return self._settle(model.identity, predictor, order)

    def _prove(self, bundle: ModelBundle, identity: ModelIdentity) -> Predictor:
        """Open a model while the old one is still in use."""
        return open_proved(
            bundle,
            self._engine,
            self._precision,
            self._proof,
            records=self._records,
            name=identity.name or self._name,
            version=identity.version,
            limits=self._limits(bundle.limits),
        )

    def _settle(self, identity: ModelIdentity, predictor: Predictor | None, order: _Order) -> bool:
        """Swap in the proved model, and note the pin or its end; return whether there was a swap.

        ``predictor``: None if the model is in use already.
        Raises:
            RootstockError: The model is no longer in use.
        """
        with self._turn:
            if order.after not in (None, self._orders):
                return False
            if predictor is not None:
                self._swap(predictor, identity)
            elif identity != self._identity:
                raise RootstockError("another model was swapped in first", hint="ask again")
            if order.pin is not None:
                self._orders += 1
                # As the registry writes it: "02" is version 2.
                self._pinned = identity.version if order.pin else ""
                self._cache.note(pinned=self._pinned)
        return predictor is not None

    def _swap(self, predictor: Predictor, identity: ModelIdentity) -> None:
        before = (
            self._predictor.info["version"] if self._predictor else self._cache.read_note("version")
        )
        if before and before != identity.version:
            self._previous = before
        self._predictor, self._identity, self.refused = predictor, identity, None
        if self.source.name:
            self._cache.remember(identity, previous=self._previous)
        self.on_swap("swapped")
        log_opened(predictor)

    def _refuse(self, version: str, error: RootstockError, state: str) -> None:
        folder = self.source.directory or self._cache.home
        # NoModelError means that its files are gone. Other errors may come from the registry.
        if isinstance(error, BundleError | NoModelError):
            self.refused = Refusal(version, hide_folder(error.message, folder), time.time())
            self._refused_state = state
            self.on_swap("refused")
        outcome = "the model in use stays" if self.ready else "there is no model yet"
        model = f"version {version}" if version else "the model"
        _log.error("%s was rejected, %s: %s", model, outcome, error.message)

    def _was_refused(self, version: str, state: str) -> bool:
        """Whether the model was rejected recently. Without any model, every check tries again."""
        return (
            self.refused is not None
            and self.ready
            and (self.refused.version, self._refused_state) == (version, state)
            and time.time() - self.refused.at < RETRY_REFUSED_SECONDS
        )
