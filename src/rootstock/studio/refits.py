"""The head fitted again to the current labels, separate from the model that it comes from."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rootstock.config.schema import Config
from rootstock.errors import RootstockError
from rootstock.studio.project import StudioProject
from rootstock.studio.work import find_problem
from rootstock.system.exclusive import claim_folder

if TYPE_CHECKING:
    from rootstock.workflow.refit import Refit


class Refits:
    """Fits one head at a time, in a thread, without disturbing a run that uses the project."""

    def __init__(self, project: StudioProject) -> None:
        self._project = project
        self._lock = threading.Lock()
        self._prepared = False
        self._work = ""
        self._refit: Refit | None = None
        self._outcome: dict[str, Any] | None = None
        self._problem: dict[str, str] | None = None

    def describe(self) -> dict[str, Any]:
        """Return the current work and its result."""
        with self._lock:
            refit, facts = self._refit, {"work": self._work, "problem": self._problem}
            if refit is None:
                return facts
            return facts | {
                "metrics": refit.metrics,
                "comparison": refit.comparison and refit.comparison.to_dict(),
                "corrected": refit.n_corrected,
                "seconds": round(refit.seconds, 2),
                "outcome": self._outcome,
            }

    def prepare(self) -> None:
        """Load what a fit and its registration need, once and in a thread: it takes seconds."""
        if not self._prepared:
            self._prepared = True
            threading.Thread(target=self._load, daemon=True).start()

    def _load(self) -> None:
        names = ["rootstock.workflow.refit", "rootstock.workflow.register"]
        if self._project.config.tracking.enabled and importlib.util.find_spec("mlflow"):
            names += ["mlflow", "rootstock.integrations.mlflow.registry"]
        for name in names:
            importlib.import_module(name)

    def start(self) -> dict[str, Any]:
        """Fit the head, unless a fit is already running."""
        return self._begin("refit", self._fit)

    def register(self) -> dict[str, Any]:
        """Register the last head and compare it with the champion."""
        return self._begin("register", self._register)

    def _begin(self, work: str, run: Callable[[], None]) -> dict[str, Any]:
        with self._lock:
            if not self._work:
                self._work, self._problem = work, None
                threading.Thread(target=self._run, args=(run,), daemon=True).start()
        return self.describe()

    def _run(self, run: Callable[[], None]) -> None:
        def claim_and_run() -> None:
            with claim_folder(self._project.root):
                run()

        problem = find_problem(claim_and_run, failed="Fitting the head failed.")
        with self._lock:
            self._work, self._problem = "", problem

    def _fit(self) -> None:
        from rootstock.workflow.refit import refit_head  # imports torch

        refit = refit_head(self._config, self._project.paths)
        with self._lock:
            self._refit, self._outcome = refit, None

    def _register(self) -> None:
        from rootstock.integrations.connect import connect_registry, connect_runs
        from rootstock.workflow.register import register_model

        refit, paths = self._refit, self._project.paths
        if refit is None:
            raise RootstockError("no new head yet", hint="fit it first")
        runs, registry = connect_runs(self._config, paths), connect_registry(self._config, paths)
        outcome = register_model(refit.config, refit.paths, runs=runs, registry=registry)
        with self._lock:
            self._outcome = outcome

    @property
    def _config(self) -> Config:
        config = self._project.config
        data = config.data.model_copy(update={"root": self._project.data})
        return config.model_copy(update={"data": data})
