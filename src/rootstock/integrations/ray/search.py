"""Run trials in parallel with Ray, on this machine or on a cluster.

Each candidate has its own directory, named by its params: a trial whose process was killed, and a
repeated search, finds the earlier results there.

An exception in the objective is a result: it would be raised again, so the trial ends with its
`error`. A process that dies (killed, out of memory, lost node) is not a result: Ray starts the
trial again, at most `max_failures` times.

Optuna draws the trials beyond the planned ones. A repeated search gives Optuna all earlier trials:
finished ones answer at once, the others continue.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rootstock.errors import TrainingError
from rootstock.integrations.ray.cluster import ray_session
from rootstock.integrations.ray.distributed import as_floats, run_in_group, tune_message
from rootstock.integrations.ray.memory import explain_full_memory
from rootstock.ports.search import (
    NO_REPORT_MESSAGE,
    NO_TIME_MESSAGE,
    Objective,
    Params,
    Trial,
    group_size,
    trial_name,
    watch_trials,
)
from rootstock.ports.search_space import Exploration, Interval
from rootstock.system.files import write_json
from rootstock.system.progress import Progress

# The first epochs are warm-up and say little.
GRACE_STEPS = 3
HALVING_FACTOR = 3
PATIENCE_SECONDS = 10.0
"""How much longer than the limit a trial may take to end before Ray ends it."""
_PARAMS_FILE = "params.json"


@dataclass(frozen=True)
class RaySearcher:
    """Runs trials in Ray Tune: on ``address``, otherwise RAY_ADDRESS, otherwise a local Ray.

    ``cpus_per_trial`` also limits each trial's threads. With ``gpus_per_trial="auto"`` a trial
    gets one GPU if there is one. A cluster of several machines needs ``directory`` on a shared
    file system, and Rootstock installed on each machine.
    """

    concurrent: int | Literal["auto"] = "auto"
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | Literal["auto"] = "auto"
    max_failures: int = 2
    address: str = ""

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
        quick: bool = False,  # noqa: ARG002 - a search that is sent to Ray runs there
    ) -> list[Trial]:
        """Run every candidate; return one trial each, in order, then the explored ones.

        A trial that ``early_stop`` (successive halving) ended has its last reported metrics.

        Raises:
            TrainingError: Ray cannot be reached or started, is too small for one trial, or ended
              a worker because the memory is full.
        """
        directory = directory.resolve()
        planned = {directory / trial_name(params): params for params in candidates}
        if not planned:
            return []
        with self.session():
            trials = self._tune(
                objective,
                planned,
                directory=directory,
                metric=metric,
                mode=mode,
                early_stop=early_stop,
                exploration=exploration,
                seconds=seconds,
            )
        named = [directory / trial_name(params) for params in candidates]
        missing = [
            Trial(planned[home], {}, home, NO_TIME_MESSAGE, timed_out=True) for home in planned
        ]
        all_trials = {trial.directory: trial for trial in missing} | trials
        return [all_trials[home] for home in named] + [
            t for h, t in trials.items() if h not in planned
        ]

    def session(self) -> AbstractContextManager[None]:
        """Provide Ray for several searches; without a session each search starts its own.

        A Ray that was already running is used, and left running.

        Raises:
            TrainingError: Ray cannot be reached or started.
        """
        return ray_session(self.address or os.environ.get("RAY_ADDRESS", ""))

    def _resources(self) -> dict[str, float]:
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus, gpus = (max(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
        gpus_per_trial = (
            (1.0 if gpus else 0.0) if self.gpus_per_trial == "auto" else self.gpus_per_trial
        )
        if gpus_per_trial > gpus:
            raise TrainingError(
                f"search.gpus_per_trial is {gpus_per_trial:g}, but no machine of this Ray has "
                f"more than {gpus:g} GPUs",
                hint="--set search.gpus_per_trial=auto",
            )
        # With fewer cores than requested there are only fewer threads.
        return {"cpu": min(self.cpus_per_trial, cpus), "gpu": gpus_per_trial}

    def _tune(
        self,
        objective: Objective,
        planned: Mapping[Path, Params],
        *,
        directory: Path,
        metric: str,
        mode: str,
        early_stop: bool,
        exploration: Exploration | None,
        seconds: float | None,
    ) -> dict[Path, Trial]:
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler

        resources = self._resources()
        concurrent = None if self.concurrent == "auto" else self.concurrent
        trainable = tune.with_parameters(
            _run_trial,
            objective=objective,
            planned=list(planned.values()),
            directory=directory,
            metric=metric,
            mode=mode,
            resources=resources,
            max_failures=self.max_failures,
            until=None if seconds is None else time.time() + seconds,
            folder=os.getcwd(),
        )
        halving = ASHAScheduler(
            time_attr="step",
            metric="value",
            mode=mode,
            max_t=10**9,
            grace_period=GRACE_STEPS,
            reduction_factor=HALVING_FACTOR,
        )
        total = max(len(planned), exploration.trials) if exploration else len(planned)
        shared = group_size(objective) > 1
        progress = watch_trials(directory, total, None if exploration else list(planned))
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 0.001} if shared else resources),
            param_space=None
            if exploration
            else {"candidate": tune.grid_search(list(range(len(planned))))},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=concurrent
                or (_groups_at_once(objective) if shared else None),
                reuse_actors=True,
                scheduler=halving if early_stop else None,
                search_alg=_optuna(exploration, planned, directory, mode) if exploration else None,
                num_samples=total if exploration else 1,
                time_budget_s=None if seconds is None else seconds + PATIENCE_SECONDS,
            ),
            run_config=tune.RunConfig(
                name="search",
                # One place for Ray's own files; those of an earlier search are not needed.
                storage_path=str(_fresh(directory / ".ray")),
                failure_config=tune.FailureConfig(max_failures=self.max_failures),
                callbacks=[_count_trials(progress)],
                verbose=0,
            ),
        )
        with progress, explain_full_memory():
            results = tuner.fit()
        trials = {}
        for result in results:
            if result.config is None:
                continue  # time ran out before Ray had a process for this trial
            params = _params_of(result.config, list(planned.values()))
            home = directory / trial_name(params)
            trials[home] = _outcome(params, home, result, self.max_failures)
        return trials


def _optuna(
    exploration: Exploration, planned: Mapping[Path, Params], directory: Path, mode: str
) -> Any:
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions: dict[str, Any] = {
        name: optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)
        if isinstance(values, Interval)
        else optuna.distributions.CategoricalDistribution(values)
        for name, values in exploration.space.items()
    }
    begun = sorted(
        directory.glob(f"trial-*/{_PARAMS_FILE}"), key=lambda path: path.stat().st_mtime_ns
    )
    earlier = [path for path in begun if path.parent not in planned]
    points = [dict(params) for params in planned.values()]
    points += [json.loads(path.read_text(encoding="utf-8")) for path in earlier]
    return OptunaSearch(
        distributions,
        metric="value",
        mode=mode,
        points_to_evaluate=points,
        # A new start would draw the same points, which are among the earlier ones.
        seed=exploration.seed + len(earlier),
    )


def _params_of(config: Mapping[str, Any], planned: Sequence[Params]) -> Params:
    return planned[config["candidate"]] if "candidate" in config else config


def _run_trial(
    config: Mapping[str, Any],
    *,
    objective: Objective,
    planned: Sequence[Params],
    directory: Path,
    metric: str,
    mode: str,
    resources: Mapping[str, float],
    max_failures: int,
    until: float | None,
    folder: str,
) -> None:
    """Run one trial, in a worker process."""
    from ray import tune

    params = _params_of(config, planned)
    home = directory / trial_name(params)
    _limit_threads(max(1, int(resources["cpu"])))
    with contextlib.suppress(OSError):  # it may not exist on another machine
        os.chdir(folder)

    def report(step: int, values: Mapping[str, float]) -> None:
        tune.report(tune_message(metric, step, values))

    try:
        home.mkdir(parents=True, exist_ok=True)
        write_json(home / _PARAMS_FILE, dict(params))
        if until is not None and time.time() > until:
            raise _NoTimeError(NO_TIME_MESSAGE)
        if group_size(objective) > 1:
            metrics = run_in_group(
                objective,
                params,
                home,
                metric=metric,
                resources=resources,
                max_failures=max_failures,
            )
        else:
            metrics = objective(params, home, report)
        values = as_floats(metrics)
        answer = {"values": values, "value": values[metric], "error": ""}
    except Exception as error:  # noqa: BLE001 - one trial's exception must not end the others
        with contextlib.suppress(OSError):
            (home / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        # Optuna needs a number for every trial.
        worst = math.inf if mode == "min" else -math.inf
        answer = {
            "values": {},
            "value": worst,
            "error": _message(error),
            "timed_out": isinstance(error, _NoTimeError),
        }
    tune.report(answer)


class _NoTimeError(TimeoutError):
    """The trial was not started."""


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"


def _groups_at_once(objective: Objective) -> int:
    """Return how many whole groups fit: a partial group would wait forever."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)) // group_size(objective))


def _limit_threads(threads: int) -> None:
    # If torch is not imported yet, the variable counts, otherwise the call.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _outcome(params: Params, home: Path, result: Any, max_failures: int) -> Trial:
    metrics = result.metrics or {}
    if result.error is not None:
        reason = str(result.error).strip().partition("\n")[0]
        return Trial(
            params,
            {},
            home,
            error=f"its process died again after {max_failures} restart(s): {reason}",
        )
    if "error" not in metrics and "values" not in metrics:
        return Trial(params, {}, home, NO_REPORT_MESSAGE, timed_out=True)
    error = metrics.get("error", "")
    if not error and not home.is_dir():
        error = f"{home} is not visible here: the cluster's machines must share it"
    values = {} if error else metrics["values"]
    return Trial(params, values, home, error, timed_out=metrics.get("timed_out", False))


def _count_trials(progress: Progress) -> Any:
    """Return a callback of Ray Tune that counts the trials that have ended."""
    from ray.tune import Callback

    class Counter(Callback):
        """Counts finished trials. Ray pickles it with the search, but the progress stays here."""

        def __init__(self, progress: Progress) -> None:
            self.progress: Progress | None = progress

        def __getstate__(self) -> dict[str, Any]:
            return {"progress": None}

        def on_trial_complete(self, **_: Any) -> None:
            if self.progress:
                self.progress.update()

        on_trial_error = on_trial_complete

    return Counter(progress)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
