"""Runs in MLflow, with explicit clients: MLflow's global state is never set.

Works in any process, next to a user's own use of MLflow.
"""

from __future__ import annotations

import functools
import getpass
import json
import math
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootstock.errors import ArtifactError, TrackingError
from rootstock.integrations.mlflow.client import (
    cut,
    mlflow_client,
    patiently,
    translated,
)
from rootstock.integrations.mlflow.database import sqlite_file
from rootstock.integrations.mlflow.places import artifacts_of, bring_home
from rootstock.model.lineage import find_commit
from rootstock.ports.runs import Run, RunData

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Servers before MLflow 2 refuse params above 500 characters; longer ones are unreadable anyway.
MAX_PARAM_CHARACTERS = 500
MAX_TAG_CHARACTERS = 5_000
MAX_KEY_CHARACTERS = 250
BATCH_ITEMS = 100
MAX_DIGEST_CHARACTERS = 36
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""With this tag MLflow opens the experiment with its runs, not with language model pages."""


@dataclass(frozen=True)
class MlflowRunLogger:
    """Opens runs of one experiment; picklable, so that worker processes open child runs.

    ``artifact_root`` is where a new experiment stores its files; empty: ``mlruns`` next to an
    SQLite file, otherwise the server's default. It is used when an experiment is created.
    ``patience``: seconds that an open run, and the opening of a child, wait for an MLflow that
    stopped answering. Repeated calls keep their original time, and MLflow stores them once.
    """

    tracking_uri: str
    experiment: str
    artifact_root: str = ""
    patience: float = 0.0

    @contextmanager
    def run(
        self,
        name: str,
        *,
        parent_id: str = "",
        run_id: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> Iterator[Run]:
        """Open a run, or continue ``run_id``; it ends FINISHED, FAILED or (on Ctrl-C) KILLED.

        A continued run gets the ``name``, unless it is empty.
        Raises:
            TrackingError: MLflow cannot be reached or refuses, or there is no such run.
        """
        if not parent_id:
            self._bring_home()
        run = MlflowRun(self.tracking_uri, run_id or self._create(name, parent_id), self.patience)
        if run_id:
            replace(run, patience=0.0)._update("RUNNING", name=name or None)
        run.set_tags(tags or {})
        try:
            yield run
        except BaseException as error:
            # Report the error that ended the body; do not replace it by a second one from here.
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            try:
                replace(run, patience=0.0)._update(status)
            except TrackingError as second:
                error.add_note(f"the run could not be marked as {status}: {second.message}")
            raise
        run._update("FINISHED")

    def _bring_home(self) -> None:
        """Correct the file addresses of a moved or copied project before a file is written."""
        database = sqlite_file(self.tracking_uri)
        if database is not None and database.is_file():
            with translated(self.tracking_uri, "look for the files of the runs"):
                bring_home(database)

    def _create(self, name: str, parent_id: str) -> str:
        with translated(self.tracking_uri, f"start the run {name!r}"):
            client = mlflow_client(self.tracking_uri)
            tags = origin_tags() | ({"mlflow.parentRunId": parent_id} if parent_id else {})
            run = patiently(
                lambda: client.create_run(self._experiment_id(client), run_name=name, tags=tags),
                self.patience if parent_id else 0.0,
            )
            return str(run.info.run_id)

    def _experiment_id(self, client: MlflowClient) -> str:
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is None:
            root = self.artifact_root or _artifacts_next_to(self.tracking_uri)
            try:
                return str(
                    client.create_experiment(
                        self.experiment, artifact_location=root, tags=EXPERIMENT_TAGS
                    )
                )
            except Exception as error:
                # Another process may have created it in between.
                experiment = client.get_experiment_by_name(self.experiment)
                if experiment is None:
                    raise error
        if experiment.lifecycle_stage == "deleted":
            raise TrackingError(
                f"the MLflow experiment {self.experiment!r} was deleted",
                hint=f"`mlflow experiments restore -x {experiment.experiment_id}`, or name another "
                "with --set tracking.experiment=NAME",
            )
        for key, value in EXPERIMENT_TAGS.items():
            if key not in experiment.tags:
                client.set_experiment_tag(experiment.experiment_id, key, value)
        return str(experiment.experiment_id)


@dataclass(frozen=True)
class MlflowRun:
    """One run in MLflow; every method raises TrackingError when MLflow fails."""

    tracking_uri: str
    id: str
    patience: float = 0.0

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log params; nested mappings get dotted keys, and values are cut to 500 characters."""
        from mlflow.entities import Param

        flat = [
            Param(_key(key), cut(str(value), MAX_PARAM_CHARACTERS))
            for key, value in _flatten(params)
        ]
        self._send_batches("log params to", "params", flat)

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Log metrics; NaN and infinities, which charts cannot show, become tags instead."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = {key: float(value) for key, value in metrics.items()}
        finite = [
            Metric(_key(key), value, now, step)
            for key, value in values.items()
            if math.isfinite(value)
        ]
        self._send_batches("log metrics to", "metrics", finite)
        self.set_tags(
            {
                f"nonfinite.{key}": f"{value} at step {step}"
                for key, value in values.items()
                if not math.isfinite(value)
            }
        )

    def log_files(self, path: Path, *, folder: str = "") -> None:
        """Upload one file, or all of a directory, into ``folder`` of the artifacts.

        Raises:
            ArtifactError: the path does not exist.
        """
        if not path.exists():
            raise ArtifactError(f"there is no {path} to log")
        call = "log_artifacts" if path.is_dir() else "log_artifact"
        self._send(f"upload {path.name} to", call, str(path), folder or None)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, each value cut to 5,000 characters."""
        from mlflow.entities import RunTag

        flat = [
            RunTag(_key(key), cut(str(value), MAX_TAG_CHARACTERS)) for key, value in tags.items()
        ]
        self._send_batches("tag", "tags", flat)

    def describe(self, text: str) -> None:
        """Set the description, which MLflow shows at the top."""
        self.set_tags({"mlflow.note.content": text})

    def log_data(self, data: RunData) -> None:
        """Log the images as the run's training data set."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=data.name,
            digest=data.digest[:MAX_DIGEST_CHARACTERS],
            source_type="local",
            source=json.dumps({"uri": data.source}),
            profile=json.dumps(dict(data.counts)),
        )
        tag = InputTag("mlflow.data.context", "training")
        self._send("log the data of", "log_inputs", datasets=[DatasetInput(dataset, [tag])])

    def _send_batches(self, doing: str, kind: str, entities: Sequence[Any]) -> None:
        for start in range(0, len(entities), BATCH_ITEMS):
            self._send(doing, "log_batch", **{kind: entities[start : start + BATCH_ITEMS]})

    def _update(self, status: str, **others: Any) -> None:
        call = "update_run" if status == "RUNNING" else "set_terminated"
        self._send("set the status of", call, status=status, **others)

    def _send(self, doing: str, call: str, *arguments: Any, **others: Any) -> None:
        """Call MLflow's client on this run."""
        with translated(self.tracking_uri, f"{doing} the run {self.id}"):
            patiently(
                lambda: getattr(mlflow_client(self.tracking_uri), call)(
                    self.id, *arguments, **others
                ),
                self.patience,
            )


@functools.cache
def origin_tags() -> dict[str, str]:
    """Return user, command and commit of this process, under MLflow's tag names."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = ""
    found = {
        "mlflow.user": user,
        "mlflow.source.name": Path(sys.argv[0]).name,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": find_commit(),
    }
    return {key: value for key, value in found.items() if value}


def _flatten(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _key(name: str) -> str:
    # MLflow allows only these.
    return re.sub(r"[^\w\-. /:]", "_", str(name), flags=re.ASCII)[:MAX_KEY_CHARACTERS]


def _artifacts_next_to(uri: str) -> str | None:
    database = sqlite_file(uri)
    return artifacts_of(database).as_uri() if database else None
