"""A trial as a tracked run, with its result stored in its directory.

A trial writes ``result.json`` into its directory at the end. Started again with the same params it
returns this result at once, so a killed search repeats only unfinished trials.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rootstock.ports.runs import NullRunLogger, Run, RunLogger
from rootstock.ports.search import Params, Report
from rootstock.system.files import write_json
from rootstock.training.distributed import ProcessGroup
from rootstock.training.resume import resumed_run

_RESULT, _RUN = "result.json", "run.json"


@dataclass(frozen=True)
class Tracking:
    """The run of a trial: a child of the run ``parent_id``."""

    runs: RunLogger
    parent_id: str
    tags: Mapping[str, str] = field(default_factory=dict)


def run_tracked(
    body: Callable[[Params, Path, Report], dict[str, float]],
    params: Params,
    directory: Path,
    report: Report,
    tracking: Tracking,
) -> Mapping[str, float]:
    """Run ``body`` inside a child run, or return an existing result.

    In a group only the first process logs and writes.
    """
    result = directory / _RESULT
    name = " ".join(f"{k}={v}" for k, v in params.items() if not isinstance(v, list | tuple))
    if result.exists():
        earlier = json.loads(result.read_text(encoding="utf-8"))
        metrics: dict[str, float] = earlier["metrics"]
        if not earlier["run"]:  # trained in a race, before there was a run to log to
            with tracking.runs.run(name, parent_id=tracking.parent_id, tags=tracking.tags) as run:
                _log_finished(run, params, metrics)
                write_json(result, {"metrics": metrics, "run": run.id})
        report(1, metrics)
        return metrics
    started = time.monotonic()
    is_main = ProcessGroup.current().is_main
    runs = tracking.runs if is_main else NullRunLogger()
    begun = directory / _RUN
    with resumed_run(runs, begun, name, parent_id=tracking.parent_id, tags=tracking.tags) as (
        run,
        _,
    ):
        run.log_params(params)
        metrics = body(params, directory, _both(report, run))
        metrics |= {"seconds": round(time.monotonic() - started, 3)}
        _log_finished(run, {}, metrics)
        run_id = run.id
    if is_main:
        write_json(result, {"metrics": metrics, "run": run_id})
    return metrics


def _log_finished(run: Run, params: Params, metrics: Mapping[str, float]) -> None:
    if params:
        run.log_params(params)
    run.log_metrics({f"final_{key}": value for key, value in metrics.items()})


def _both(report: Report, run: Run) -> Report:
    def report_both(step: int, metrics: Mapping[str, Any]) -> None:
        run.log_metrics(metrics, step=step)
        report(step, metrics)

    return report_both
