"""Waiting for a model: time limits, and downloads that continue."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from rootstock.errors import NoModelError, TrackingError
from rootstock.model.bundle import ModelBundle
from rootstock.service.daemon import start_daemon
from rootstock.service.models.source import AvailableModel, ModelIdentity

T = TypeVar("T")


class NotLoadedError(NoModelError):
    """No model is loaded yet; ask again after ``retry_seconds``."""

    def __init__(self, retry_seconds: int) -> None:
        super().__init__("No model is loaded yet; /readyz answers 200 once there is one.")
        self.retry_seconds = retry_seconds


class SlowError(TrackingError):
    """The registry has not answered so far."""


def call_within(seconds: float | None, work: Callable[[], T]) -> T:
    """Return the result of ``work``.

    Raises:
        SlowError: It takes longer than ``seconds``; it continues in its thread.
    """
    if seconds is None:
        return work()
    return _wait(start_daemon(work), seconds, "the registry has not answered")


class Downloads:
    """Running downloads of versions: a second caller waits for the same download."""

    def __init__(self) -> None:
        self._running: dict[ModelIdentity, Future[ModelBundle]] = {}
        self._turn = threading.Lock()

    def fetch(self, model: AvailableModel, seconds: float | None) -> ModelBundle:
        """Return the bundle of ``model``.

        Raises:
            RootstockError: It cannot be fetched.
            SlowError: Fetching takes longer than ``seconds``; the download continues.
        """
        with self._turn:
            download = self._running.get(model.identity)
            if download is None:
                download = self._running[model.identity] = start_daemon(model.fetch)
        try:
            return _wait(download, seconds, f"version {model.identity.label} is not downloaded yet")
        finally:
            with self._turn:
                if download.done() and self._running.get(model.identity) is download:
                    del self._running[model.identity]


def _wait(answer: Future[T], seconds: float | None, state: str) -> T:
    try:
        return answer.result(timeout=seconds)
    except TimeoutError:
        if answer.done():
            raise
        raise SlowError(f"{state} after {seconds:.3g} seconds", hint="ask again later") from None
