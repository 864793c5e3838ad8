"""What the core asks of the outside world: run logging, a model registry, machines to work on.

Each port is a small Protocol with an implementation here that needs nothing installed, so
that the core runs and is tested without MLflow or Ray. The real ones are in `integrations`.
Implementations travel to worker processes and must therefore be picklable.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from rootstock.errors import NoModelError
from rootstock.space import Exploration, draw

Params = Mapping[str, Any]
Report = Callable[[int, Mapping[str, float]], None]
"""Called by an objective after each step (epoch) with its number and metrics."""

Objective = Callable[[Params, Path, Report], Mapping[str, float]]
"""One trial: (params, its own directory, report) -> final metrics.

The directory belongs to these params for good: a trial that is started again after a crash
finds there what it had written, and resumes.
"""


class Run(Protocol):
    """One tracked run."""

    @property
    def id(self) -> str: ...
    def log_params(self, params: Mapping[str, Any]) -> None: ...
    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None: ...
    def log_files(self, path: Path, *, folder: str = "") -> None: ...
    def set_tags(self, tags: Mapping[str, str]) -> None: ...


class RunLogger(Protocol):
    """Opens runs; ``parent_id`` makes a child, ``run_id`` continues an ended run."""

    def run(
        self,
        name: str,
        *,
        parent_id: str = "",
        run_id: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Run]: ...


@dataclass(frozen=True)
class RegistryEntry:
    """One registered version of a model."""

    name: str
    version: str
    run_id: str = ""
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One line of a model's log: ``number`` from 1 on, ``at`` by the registry's clock (Unix)."""

    number: int
    version: str
    at: float
    facts: Mapping[str, str] = field(default_factory=dict)


class ModelRegistry(Protocol):
    """Versions of a named model, and aliases such as ``champion`` that point to one.

    Each model has a log that is only ever appended to. It is what decides between processes:
    `append_record` is atomic, no number is given twice, and who sees a record sees all before it.
    """

    def register(
        self, name: str, bundle: Path, *, run_id: str, tags: Mapping[str, str], description: str
    ) -> RegistryEntry: ...
    def find(self, name: str, *, alias: str = "", version: str = "") -> RegistryEntry:
        """The entry under an alias or version; raises NoModelError."""
        ...

    def versions(self, name: str) -> Sequence[RegistryEntry]: ...
    def holds_files(self, entry: RegistryEntry) -> bool:
        """Whether the version's bundle is still there."""
        ...

    def set_alias(self, name: str, alias: str, version: str) -> None: ...
    def drop_alias(self, name: str, alias: str) -> None: ...
    def set_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None: ...
    def append_record(self, name: str, version: str, facts: Mapping[str, str]) -> int:
        """Append to the model's log; returns the record's number.

        After an error the record may be there or not: `records` tells.
        """
        ...

    def records(self, name: str) -> Sequence[Record]:
        """The model's log, oldest first."""
        ...

    def note_on_record(self, name: str, number: int, facts: Mapping[str, str]) -> None:
        """Add facts to a record; those it was appended with stay."""
        ...

    def download(self, entry: RegistryEntry, target: Path) -> Path:
        """Fetch the version's bundle into ``target``; returns the bundle directory."""
        ...


@dataclass(frozen=True)
class Trial:
    """The outcome of one trial; ``error`` is empty when it succeeded."""

    params: Params
    metrics: Mapping[str, float]
    directory: Path
    error: str = ""


class Searcher(Protocol):
    """Runs an objective over candidate params; a crash of one trial ends only that trial.

    ``exploration`` adds trials that the searcher draws itself. After ``seconds`` no trial is
    begun; one that runs is expected to end by itself.
    """

    def session(self) -> AbstractContextManager[None]:
        """What several searches share, such as workers; entering it is optional."""
        ...

    def search(
        self,
        objective: Objective,
        candidates: Sequence[Params],
        *,
        directory: Path,
        metric: str,
        mode: str,
        early_stop: bool,
        exploration: Exploration | None = None,
        seconds: float | None = None,
    ) -> list[Trial]: ...


Part = TypeVar("Part")
Result = TypeVar("Result")


class Spreader(Protocol):
    """Does one piece of work after another, or many at once on many machines."""

    def spread(
        self, work: Callable[[Part], Result], parts: Sequence[Part]
    ) -> AbstractContextManager[Iterator[Result]]:
        """Results as they are done, in any order.

        Work whose process dies is done again elsewhere; an exception of the work is raised here.
        """
        ...


class InProcess:
    """Does all work in this process."""

    def spread(
        self, work: Callable[[Part], Result], parts: Sequence[Part]
    ) -> AbstractContextManager[Iterator[Result]]:
        return nullcontext(map(work, parts))


@dataclass
class NullRun:
    """A run that forgets everything."""

    id: str = ""

    def log_params(self, params: Mapping[str, Any]) -> None: ...
    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None: ...
    def log_files(self, path: Path, *, folder: str = "") -> None: ...
    def set_tags(self, tags: Mapping[str, str]) -> None: ...


class NullRunLogger:
    """Tracks nothing."""

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


def trial_name(params: Params) -> str:
    """The name of a trial's directory: the same params, in any order, have the same."""
    text = json.dumps(params, sort_keys=True, default=str)
    return f"trial-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


OUT_OF_TIME = "no time was left to begin it"
"""The error of a trial that was not begun."""
SILENT = "it ended without reporting"
"""The error of a trial that was ended before its first epoch was over."""


class SequentialSearcher:
    """Runs the candidates one after another in this process; explores by chance."""

    def session(self) -> AbstractContextManager[None]:
        return nullcontext()

    def search(
        self,
        objective: Objective,
        candidates: Sequence[Params],
        *,
        directory: Path,
        metric: str,
        mode: str,
        early_stop: bool,
        exploration: Exploration | None = None,
        seconds: float | None = None,
    ) -> list[Trial]:
        planned: list[Params] = list(candidates)
        if exploration:
            random = np.random.default_rng(exploration.seed)
            extra = exploration.trials - len(planned)
            planned += [draw(exploration.space, random) for _ in range(extra)]
        started = time.monotonic()
        trials = []
        for params in planned:
            home = directory / trial_name(params)
            home.mkdir(parents=True, exist_ok=True)
            if seconds is not None and time.monotonic() - started > seconds:
                trials.append(Trial(params, {}, home, error=OUT_OF_TIME))
                continue
            try:
                metrics = objective(params, home, lambda step, values: None)
            except Exception as error:  # noqa: BLE001 - one trial's crash must not end the others
                trials.append(Trial(params, {}, home, error=f"{type(error).__name__}: {error}"))
            else:
                trials.append(Trial(params, metrics, home))
        return trials


class FolderRegistry:
    """A registry in memory with its bundles in one folder: for tests and dry runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.entries: dict[tuple[str, str], RegistryEntry] = {}
        self.aliases: dict[tuple[str, str], str] = {}
        self.logs: dict[str, list[Record]] = {}
        self._turn = threading.Lock()

    def register(
        self, name: str, bundle: Path, *, run_id: str, tags: Mapping[str, str], description: str
    ) -> RegistryEntry:
        version = str(sum(known == name for known, _ in self.entries) + 1)
        shutil.copytree(bundle, self.root / name / version)
        entry = RegistryEntry(name, version, run_id=run_id, tags=dict(tags))
        self.entries[name, version] = entry
        return entry

    def find(self, name: str, *, alias: str = "", version: str = "") -> RegistryEntry:
        version = version or self.aliases.get((name, alias), "")
        if (name, version) not in self.entries:
            raise NoModelError(f"no model {name!r} with alias {alias!r} or version {version!r}")
        return self._with_aliases(self.entries[name, version])

    def versions(self, name: str) -> list[RegistryEntry]:
        return [self._with_aliases(e) for (known, _), e in self.entries.items() if known == name]

    def holds_files(self, entry: RegistryEntry) -> bool:
        return (self.root / entry.name / entry.version).is_dir()

    def set_alias(self, name: str, alias: str, version: str) -> None:
        self.aliases[name, alias] = version

    def drop_alias(self, name: str, alias: str) -> None:
        self.aliases.pop((name, alias), None)

    def set_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        entry = self.entries[name, version]
        self.entries[name, version] = RegistryEntry(
            name, version, entry.run_id, tags={**entry.tags, **tags}
        )

    def append_record(self, name: str, version: str, facts: Mapping[str, str]) -> int:
        with self._turn:
            log = self.logs.setdefault(name, [])
            log.append(Record(len(log) + 1, version, time.time(), dict(facts)))
            return len(log)

    def records(self, name: str) -> list[Record]:
        return list(self.logs.get(name, ()))

    def note_on_record(self, name: str, number: int, facts: Mapping[str, str]) -> None:
        with self._turn:
            old = self.logs[name][number - 1]
            self.logs[name][number - 1] = replace(old, facts={**facts, **old.facts})

    def download(self, entry: RegistryEntry, target: Path) -> Path:
        shutil.copytree(self.root / entry.name / entry.version, target, dirs_exist_ok=True)
        return target

    def _with_aliases(self, entry: RegistryEntry) -> RegistryEntry:
        names = tuple(
            alias
            for (name, alias), version in self.aliases.items()
            if (name, version) == (entry.name, entry.version)
        )
        return RegistryEntry(entry.name, entry.version, entry.run_id, names, entry.tags)
