"""A tracked run that goes on where an earlier process left it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rootstock.errors import ArtifactError, TrackingError
from rootstock.ports.runs import Run, RunLogger
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
    """Yield the run whose id is in ``record``, or a new one whose id is written there; and if new.

    So what a killed process had logged is not logged again in a second run.

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


def _read_run_id(record: Path, parent_id: str) -> str:
    try:
        earlier = read_json(record, made_by="train")
    except ArtifactError:
        return ""
    return str(earlier["run"]) if earlier.get("parent") == parent_id else ""
