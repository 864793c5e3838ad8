"""Tracked runs that continue after an earlier process, or one on another machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from rootstock.errors import ArtifactError, TrackingError
from rootstock.ports.runs import Run, RunLogger
from rootstock.system.digest import digest_json
from rootstock.system.files import read_json, write_json


@contextmanager
def resumed_run(
    runs: RunLogger,
    record: Path,
    name: str,
    *,
    parent_id: str = "",
    tags: Mapping[str, str] | None = None,
) -> Iterator[tuple[Run, bool]]:
    """Yield the run with the id in ``record``, or a new one whose id is written there; and if new.

    So a killed process is not logged again in a second run.

    Raises:
        TrackingError: no run can be opened.
    """
    earlier = _read_run_id(record, parent_id)
    with ExitStack() as stack:
        run = None
        if earlier:
            with suppress(TrackingError):  # it was deleted, or is in another MLflow
                run = stack.enter_context(runs.run(name, run_id=earlier, tags=tags))
        fresh = run is None
        if run is None:
            run = stack.enter_context(runs.run(name, parent_id=parent_id, tags=tags))
            if run.id:
                write_json(record, {"run": run.id, "parent": parent_id})
        yield run, fresh


@contextmanager
def training_run(runs: RunLogger, training: Mapping[str, Any], kept: Path) -> Iterator[Run]:
    """Yield the run that trained a model, or a new run if that one is unknown here.

    ``training`` is training.json. It is from another machine if the model was pulled; the id of
    the new run is then stored in the folder ``kept``, for the next stage.

    Raises:
        TrackingError: no run can be opened.
    """
    earlier = str(training["run_id"])
    with ExitStack() as stack:
        run = None
        if earlier:
            with suppress(TrackingError):
                run = stack.enter_context(runs.run("", run_id=earlier))
        if run is None:
            record = kept / f"{digest_json([training], digits=16)}.json"
            tags = {
                "rootstock.strategy": str(training["strategy"]),
                "rootstock.trained_in": earlier,
            }
            run, fresh = stack.enter_context(
                resumed_run(runs, record, str(training["strategy"]), tags=tags)
            )
            if fresh:
                run.log_metrics(training["metrics"])
        yield run


def _read_run_id(record: Path, parent_id: str) -> str:
    try:
        earlier = read_json(record, made_by="train")
    except ArtifactError:
        return ""
    return str(earlier["run"]) if earlier.get("parent") == parent_id else ""
