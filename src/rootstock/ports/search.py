"""Trials: an objective over candidate params, and a searcher that runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rootstock.ports.progress import TrialWatch
from rootstock.ports.search_space import Exploration, draw
from rootstock.system.digest import digest_json
from rootstock.system.progress import Progress

Params = Mapping[str, Any]


Report = Callable[[int, Mapping[str, float]], None]
"""Called by an objective after each step (epoch), with its number and metrics."""


Objective = Callable[[Params, Path, Report], Mapping[str, float]]
"""One trial: (params, its own directory, report) -> final metrics.

The directory always belongs to these params: a trial that is started again after a crash finds its
earlier files there, and resumes.
"""


@dataclass(frozen=True)
class Trial:
    """The outcome of one trial; ``error`` is empty if it succeeded.

    ``timed_out``: there was no time to start it, or to wait for its first report.
    """

    params: Params
    metrics: Mapping[str, float]
    directory: Path
    error: str = ""
    timed_out: bool = False


class Searcher(Protocol):
    """Runs an objective over candidate params; a crash of one trial ends only that trial.

    ``exploration`` adds trials that the searcher draws. After ``seconds`` no trial is started; a
    running trial is expected to end itself. ``quick``: starting a worker takes longer than all
    trials together.
    """

    def session(self) -> AbstractContextManager[None]:
        """Return a context that several searches share, such as workers; it is optional."""
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
        quick: bool = False,
    ) -> list[Trial]: ...


def trial_name(params: Params) -> str:
    """Return the name of a trial's directory, the same for the same params in any order."""
    return f"trial-{digest_json(params, digits=12)}"


NO_TIME_MESSAGE = "no time was left to start it"
NO_REPORT_MESSAGE = "it ended without reporting"


class SequentialSearcher:
    """Runs the candidates one after another in this process; explores at random."""

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
        quick: bool = False,
    ) -> list[Trial]:
        planned: list[Params] = list(candidates)
        if exploration:
            random = np.random.default_rng(exploration.seed)
            extra = exploration.trials - len(planned)
            planned += [draw(exploration.space, random) for _ in range(extra)]
        started = time.monotonic()
        trials = []
        homes = [directory / trial_name(params) for params in planned]
        with watch_trials(directory, len(planned), homes) as progress:
            for params, home in zip(planned, homes, strict=True):
                home.mkdir(parents=True, exist_ok=True)
                if seconds is not None and time.monotonic() - started > seconds:
                    trials.append(Trial(params, {}, home, NO_TIME_MESSAGE, timed_out=True))
                    continue
                try:
                    metrics = objective(params, home, lambda step, values: None)
                except Exception as error:  # noqa: BLE001 - a crash must not end the other trials
                    trials.append(Trial(params, {}, home, error=f"{type(error).__name__}: {error}"))
                else:
                    trials.append(Trial(params, metrics, home))
                progress.update()
        return trials


@dataclass
class LocalFirst:
    """Runs a search in this process if workers on this machine would not end it sooner.

    These are quick searches, and a single trial: here it gets all cores. Other searches, and
    trials that several processes share, go to ``workers``, which are started by the first.
    """

    workers: Searcher
    _session: ExitStack | None = field(default=None, init=False, repr=False)

    @contextmanager
    def session(self) -> Iterator[None]:
        with ExitStack() as session:
            self._session = session
            try:
                yield
            finally:
                self._session = None

    def search(
        self,
        objective: Objective,
        candidates: Sequence[Params],
        *,
        quick: bool = False,
        exploration: Exploration | None = None,
        **options: Any,
    ) -> list[Trial]:
        searcher = self.workers
        alone = len(candidates) == 1 and not exploration and group_size(objective) == 1
        if quick or alone:
            searcher = SequentialSearcher()
        elif self._session:
            self._session.enter_context(searcher.session())
        return searcher.search(objective, candidates, exploration=exploration, **options)


def group_size(objective: Objective) -> int:
    """Return the number of processes of an objective: its attribute ``workers``, or one."""
    return int(getattr(objective, "workers", 1))


def watch_trials(directory: Path, total: int, homes: Collection[Path] | None = None) -> Progress:
    """Return a progress display for ``total`` trials below ``directory``, or those in ``homes``."""
    watch = TrialWatch(directory, total, homes)
    return Progress(directory.name, total, "trial", describe=watch.describe)
