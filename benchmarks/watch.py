"""Something measured again and again while other work runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psutil

T = TypeVar("T")


@contextmanager
def sampled(measure: Callable[[], T], *, seconds: float = 0.2) -> Iterator[list[T]]:
    """The values of ``measure`` every few ``seconds`` until the block ends, in a growing list."""
    values: list[T] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(seconds):
            try:
                values.append(measure())
            except psutil.Error:  # a process ended meanwhile
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield values
    finally:
        done.set()
        watcher.join()
