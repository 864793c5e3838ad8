"""Run logging: the interface through which a stage logs its run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class RunData:
    """A data set: its name, the hash of its content, its place, and its counts."""

    name: str
    digest: str
    source: str
    counts: Mapping[str, int]


class Run(Protocol):
    """One tracked run."""

    @property
    def id(self) -> str: ...
    def log_params(self, params: Mapping[str, Any]) -> None: ...
    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None: ...
    def log_files(self, path: Path, *, folder: str = "") -> None: ...
    def set_tags(self, tags: Mapping[str, str]) -> None: ...
    def describe(self, text: str) -> None:
        """Set the description at the top of the run."""
        ...

    def log_data(self, data: RunData) -> None:
        """Log the images that the run learns from."""
        ...


class RunLogger(Protocol):
    """Opens runs; ``parent_id`` makes a child, ``run_id`` continues an ended run.

    A continued run gets the ``name``, unless it is empty.
    """

    def run(
        self,
        name: str,
        *,
        parent_id: str = "",
        run_id: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Run]: ...


@dataclass
class NullRun:
    """A run that stores nothing."""

    id: str = ""

    def log_params(self, params: Mapping[str, Any]) -> None: ...
    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None: ...
    def log_files(self, path: Path, *, folder: str = "") -> None: ...
    def set_tags(self, tags: Mapping[str, str]) -> None: ...
    def describe(self, text: str) -> None: ...
    def log_data(self, data: RunData) -> None: ...


class NullRunLogger:
    """Opens runs that store nothing."""

    @contextmanager
    def run(
        self,
        name: str,
        *,
        parent_id: str = "",
        run_id: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> Iterator[Run]:
        yield NullRun()
