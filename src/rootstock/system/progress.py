"""The progress of long work: a bar in a terminal, otherwise a line every half minute.

It is written to standard error; standard output is for results.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

LINE_SECONDS = 30.0
"""Seconds between two lines without a terminal."""
BAR_SECONDS = 2.0
"""Seconds between two updates in a terminal, for work that reports nothing."""


def say(text: str) -> None:
    """Print a line, above the bar if there is one."""
    if _is_terminal():
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


_open: list[Progress] = []
"""Work in progress, the outermost first."""


class Progress:
    """Work of ``total`` units under a ``name``, as a context manager; report them to `update`.

    ``total`` may be 0 if nothing can be counted. ``describe`` is called for more text to show,
    even while no unit ends, from another thread. Work inside other work shares its lines.
    """

    def __init__(
        self, name: str, total: int, unit: str, *, describe: Callable[[], str] | None = None
    ) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self._describe = describe
        self._started = time.monotonic()
        self._said = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._bar: Any = None

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        if terminal := _is_terminal():
            from tqdm import tqdm

            self._bar = tqdm(total=self.total or None, desc=self.name, unit=self.unit)
        if self._describe if terminal else not _open:
            seconds = BAR_SECONDS if terminal else LINE_SECONDS
            self._thread = threading.Thread(target=self._look, args=(seconds,), daemon=True)
            self._thread.start()
        _open.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _open.remove(self)
        self._ended.set()
        if self._thread:
            self._thread.join()
        if self._bar is not None:
            self._bar.close()
        elif self._said and error is None and not _open:
            say(f"{self.name}: done in {show_seconds(self._seconds)}")

    def update(self, count: int = 1) -> None:
        """Count ``count`` more units as done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _look(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            if self._bar is not None and self._describe:
                self._bar.set_postfix_str(self._describe())
            else:
                self._said = True
                say(" | ".join(work._line() for work in tuple(_open)))

    def _line(self) -> str:
        parts = []
        more = self._describe() if self._describe else ""
        if self.total:
            parts.append(f"{self.done:,} of {self.total:,} {self.unit}s")
        if more:
            parts.append(more)
        elif self.done and self.total > self.done:
            left = self._seconds * (self.total - self.done) / self.done
            parts.append(f"about {show_seconds(left)} left")
        parts.append(f"{show_seconds(self._seconds)} so far")
        return f"{self.name}: {'; '.join(parts)}"


def show_seconds(seconds: float) -> str:
    """Return a duration in words."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = seconds / 60
    if minutes < 90:
        return f"{minutes:.1f} minutes" if minutes < 9.95 else f"{minutes:.0f} minutes"
    return f"{minutes / 60:.1f} hours"


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
