"""Measure something repeatedly while other work runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psutil

T = TypeVar("T")


@contextmanager
def sampled(measure: Callable[[], T], *, seconds: float = 0.2) -> Iterator[list[T]]:
    """Yield a growing list of the values of ``measure``, taken every few ``seconds``."""
    values: list[T] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(seconds):
            try:
                values.append(measure())
            except psutil.Error:  # a process ended in between
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield values
    finally:
        done.set()
        watcher.join()
