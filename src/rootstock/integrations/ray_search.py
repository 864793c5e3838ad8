"""Trials side by side in Ray, on this machine or on a cluster.

Each candidate has a directory of its own, named by its params: a trial whose process was
killed, and a whole search that is started again, finds there what was written before.

An exception in the objective is an answer: run again it would be raised again, so the trial
ends with its `error`. A process that dies (killed, out of memory, its node lost) is not:
Ray starts the trial again, `max_failures` times at most.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rootstock.errors import TrainingError
from rootstock.integrations.ray_cluster import ray_session
from rootstock.ports import Objective, Params, Trial

# The first epochs warm the learning rate up and say little.
GRACE_STEPS = 3
KEEP_ONE_IN = 3


@dataclass(frozen=True)
class RaySearcher:
    """Runs trials in Ray Tune: on ``address``, else RAY_ADDRESS, else a local Ray of its own.

    ``cpus_per_trial`` also bounds each trial's threads. With ``gpus_per_trial="auto"`` a trial
    gets one GPU where there is any. A cluster of several machines needs ``directory`` on a
    file system they share, and Rootstock installed on each.
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
    ) -> list[Trial]:
        """Run every candidate; returns one trial each, in their order.

        A trial that ``early_stop`` (successive halving) ended has the metrics it last reported.

        Raises:
            TrainingError: Ray cannot be reached or started, or has too little for one trial.
        """
        homes = [directory.resolve() / trial_name(params) for params in candidates]
        unique = dict(zip(homes, candidates, strict=True))
        if not unique:
            return []
        with self.session():
            trials = _tune(
                objective,
                unique,
                resources=self._resources(),
                # One place for Ray's own notes; those of an earlier search mean nothing now.
                storage=_fresh(directory.resolve() / ".ray"),
                metric=metric,
                mode=mode,
                early_stop=early_stop,
                concurrent=None if self.concurrent == "auto" else self.concurrent,
                max_failures=self.max_failures,
            )
        return [trials[home] for home in homes]

    def session(self) -> AbstractContextManager[None]:
        """Ray for several searches; each search opens its own where none is open.

        A Ray that was running before is used and left running.

        Raises:
            TrainingError: Ray cannot be reached or started.
        """
        return ray_session(self.address or os.environ.get("RAY_ADDRESS", ""))

    def _resources(self) -> dict[str, float]:
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus, gpus = (max(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
        wanted = (1.0 if gpus else 0.0) if self.gpus_per_trial == "auto" else self.gpus_per_trial
        if wanted > gpus:
            raise TrainingError(
                f"search.gpus_per_trial is {wanted:g}, but no machine of this Ray has more than "
                f"{gpus:g} GPUs",
                hint="--set search.gpus_per_trial=auto",
            )
        # Fewer cores than asked for only mean fewer threads.
        return {"cpu": min(self.cpus_per_trial, cpus), "gpu": wanted}


def trial_name(params: Params) -> str:
    """The name of a candidate's directory: the same params, in any order, have the same."""
    text = json.dumps(params, sort_keys=True, default=str)
    return f"trial-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _tune(
    objective: Objective,
    unique: Mapping[Path, Params],
    *,
    resources: Mapping[str, float],
    storage: Path,
    metric: str,
    mode: str,
    early_stop: bool,
    concurrent: int | None,
    max_failures: int,
) -> dict[Path, Trial]:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    trainable = tune.with_parameters(
        _run_trial,
        objective=objective,
        candidates=list(unique.items()),
        metric=metric,
        threads=max(1, int(resources["cpu"])),
        folder=os.getcwd(),
    )
    halving = ASHAScheduler(
        time_attr="step",
        metric="value",
        mode=mode,
        max_t=10**9,
        grace_period=GRACE_STEPS,
        reduction_factor=KEEP_ONE_IN,
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, dict(resources)),
        param_space={"candidate": tune.grid_search(list(range(len(unique))))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            scheduler=halving if early_stop else None,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(storage),
            failure_config=tune.FailureConfig(max_failures=max_failures),
            callbacks=[_progress(len(unique), metric=metric, mode=mode)],
            verbose=0,
        ),
    )
    homes = list(unique)
    trials = {}
    for result in tuner.fit():
        home = homes[result.config["candidate"]]
        trials[home] = _outcome(unique[home], home, result, max_failures)
    return trials


def _run_trial(
    config: Mapping[str, int],
    *,
    objective: Objective,
    candidates: Sequence[tuple[Path, Params]],
    metric: str,
    threads: int,
    folder: str,
) -> None:
    """One trial, in a worker process. Messages are nested: Ray adds keys of its own."""
    from ray import tune

    home, params = candidates[config["candidate"]]
    _limit_threads(threads)
    with contextlib.suppress(OSError):  # another machine may not have it
        os.chdir(folder)

    def report(step: int, values: Mapping[str, float]) -> None:
        message: dict[str, Any] = {"step": step, "values": _floats(values)}
        if metric in values:
            message["value"] = float(values[metric])
        tune.report(message)

    try:
        home.mkdir(parents=True, exist_ok=True)
        values = _floats(objective(params, home, report))
        answer = {"values": values, "value": values[metric], "error": ""}
    except Exception as error:  # noqa: BLE001 - one trial's exception must not end the others
        with contextlib.suppress(OSError):
            (home / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        answer = {"values": {}, "error": f"{type(error).__name__}: {error}"}
    tune.report(answer)


def _limit_threads(threads: int) -> None:
    # For torch not imported yet the variable counts, afterwards the call does.
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
            error=f"its process died, {max_failures} restart(s) included: {reason}",
        )
    error = metrics.get("error", "" if "values" in metrics else "it ended without reporting")
    if not error and not home.is_dir():
        error = f"{home} is not to be seen here: the cluster's machines must share it"
    return Trial(params, {} if error else metrics["values"], home, error=error)


def _floats(values: Mapping[str, float]) -> dict[str, float]:
    return {key: float(value) for key, value in values.items()}


def _progress(total: int, *, metric: str, mode: str) -> Any:
    from ray.tune import Callback
    from tqdm import tqdm

    better = max if mode == "max" else min

    class Progress(Callback):
        """One bar over the trials; Ray pickles it with the search, the bar stays behind."""

        def __init__(self) -> None:
            self.best: float | None = None
            self.bar: Any = tqdm(total=total, desc="trials", unit="trial", disable=None)

        def __getstate__(self) -> dict[str, Any]:
            return {"best": self.best, "bar": None}

        def on_trial_complete(self, **info: Any) -> None:
            value = info["trial"].last_result.get("value")
            if value is not None and value == value:
                self.best = value if self.best is None else better(self.best, value)
                self.bar.set_postfix_str(f"best {metric} {self.best:.4f}")
            self.bar.update()

        def on_trial_error(self, **_: Any) -> None:
            self.bar.update()

        def on_experiment_end(self, **_: Any) -> None:
            self.bar.close()

    return Progress()


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
