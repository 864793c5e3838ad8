"""Connect the integrations that the configuration asks for, or their simple replacements."""

from __future__ import annotations

import importlib.util
import os
import shlex
from pathlib import Path
from urllib.parse import quote

from rootstock.config.paths import Paths, find_home
from rootstock.config.schema import Config
from rootstock.errors import ConfigError, TrackingError
from rootstock.ports.registry import ModelRegistry, RegistryReader
from rootstock.ports.runs import NullRunLogger, RunLogger
from rootstock.ports.search import LocalFirst, Searcher, SequentialSearcher
from rootstock.ports.spread import InProcess, Spreader


def tracking_uri(paths: Paths) -> str:
    """Return MLFLOW_TRACKING_URI, or the SQLite file ``mlflow.db`` in the project's folder.

    An SQLite path is made absolute, because worker processes may run elsewhere. In an experiment,
    which DVC runs in a copy, the project's folder is the original one.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        database = quote(str((paths.home / "mlflow.db").resolve()), safe=SAFE_CHARACTERS)
        return f"sqlite:///{database}"
    prefix, slashes, path = uri.partition(":///")
    if prefix == "sqlite" and slashes and path and not path.startswith((":", "/")):
        return f"sqlite:///{quote(str(find_home(Path.cwd())), safe=SAFE_CHARACTERS)}/{path}"
    return uri


def locate_runs(config: Config, paths: Paths) -> str:
    """Return the address that shows the runs, with the command that serves it if needed.

    The text is empty if tracking is off. The address skips MLflow's front page, which shows tools
    for language models.
    """
    if not config.tracking.enabled:
        return ""
    from rootstock.integrations.mlflow.client import is_http, mlflow_client, redact, translated

    uri = tracking_uri(paths)
    with translated(uri, "look for the runs"):
        experiment = mlflow_client(uri).get_experiment_by_name(config.tracking.experiment)
    page = f"/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    if is_http(uri):
        return redact(uri, uri).rstrip("/") + page
    command = f"mlflow ui --backend-store-uri {shlex.quote(redact(uri, uri))}"
    return f"{command}\n          then open http://127.0.0.1:5000{page}"


def check_tracking(config: Config, paths: Paths) -> None:
    """Check the tracking server before work starts whose results it must store.

    Raises:
        TrackingError: the server cannot be reached, or refuses the user.
    """
    if not config.tracking.enabled:
        return
    from rootstock.integrations.mlflow.client import is_http, probe

    uri = tracking_uri(paths)
    if is_http(uri):
        _require("mlflow", key="tracking.enabled is true", way_out="tracking.enabled=false")
        probe(uri)


def check_cluster(config: Config) -> None:
    """Check the Ray cluster in RAY_ADDRESS before work starts that needs it.

    Raises:
        TrainingError: no cluster answers, or it refuses.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if address in ("", "local") or config.search.engine != "ray":
        return
    _require("ray", key="RAY_ADDRESS is set", way_out="search.engine=sequential")
    from rootstock.integrations.ray.cluster import probe

    probe(address)


def connect_runs(config: Config, paths: Paths) -> RunLogger:
    """Return MLflow's run logger, or one that does nothing if tracking is off."""
    if not config.tracking.enabled:
        return NullRunLogger()
    _require("mlflow", key="tracking.enabled is true", way_out="tracking.enabled=false")
    from rootstock.integrations.mlflow.tracking import MlflowRunLogger

    uri = tracking_uri(paths)
    # MLflow's default for a bare database is a folder below the current one.
    bare = not uri.startswith(("http", "sqlite", "databricks"))
    root = (paths.home.resolve() / "mlruns").as_uri() if bare else ""
    return MlflowRunLogger(
        uri, config.tracking.experiment, artifact_root=root, patience=config.tracking.patience
    )


def connect_registry(config: Config, paths: Paths, *, make: bool = True) -> ModelRegistry | None:
    """Return MLflow's model registry; None if tracking is off.

    A missing SQLite file is created on first use, unless ``make`` is False.
    Raises:
        TrackingError: the file is missing and must not be created.
    """
    if not config.tracking.enabled:
        return None
    _require("mlflow", key="tracking.enabled is true", way_out="tracking.enabled=false")
    from rootstock.integrations.mlflow.database import sqlite_file
    from rootstock.integrations.mlflow.registry import MlflowRegistry

    uri = tracking_uri(paths)
    database = sqlite_file(uri)
    if not make and database is not None and not database.is_file():
        raise TrackingError(
            f"there is no registry at {database}",
            hint="run this in the project's folder, train a model there (`rootstock train`), "
            "or set MLFLOW_TRACKING_URI",
        )
    return MlflowRegistry(uri)


def connect_reader(config: Config, paths: Paths) -> RegistryReader | None:
    """Connect a reader of the registry; for a tracking server it works without MLflow.

    Returns None if tracking is off.
    Raises:
        TrackingError: the registry is an SQLite file that does not exist.
        ConfigError: the registry is a database, but MLflow, which reads it, is not installed.
    """
    from rootstock.integrations.mlflow.client import is_http, redact

    uri = tracking_uri(paths)
    if config.tracking.enabled and is_http(uri):
        from rootstock.integrations.mlflow.rest import RestRegistry

        return RestRegistry(uri)
    if config.tracking.enabled and importlib.util.find_spec("mlflow") is None:
        raise ConfigError(
            f"the registry {redact(uri, uri)} can only be read by mlflow, which is not installed",
            hint="pip install 'rootstock-vision[train]', name a tracking server in "
            "MLFLOW_TRACKING_URI, or pass a model directory",
        )
    return connect_registry(config, paths, make=False)


def connect_searcher(config: Config) -> Searcher:
    """Return Ray on the cluster in RAY_ADDRESS, Ray on this machine, or a sequential searcher.

    On this machine Ray is used only for the searches that it ends sooner.
    """
    search = config.search
    if search.engine == "sequential":
        return SequentialSearcher()
    _require("ray", key="search.engine is ray", way_out="search.engine=sequential")
    from rootstock.integrations.ray.search import RaySearcher

    workers = RaySearcher(
        concurrent=search.concurrent,
        cpus_per_trial=search.cpus_per_trial,
        gpus_per_trial=search.gpus_per_trial,
        max_failures=search.max_failures,
    )
    return workers if os.environ.get("RAY_ADDRESS") else LocalFirst(workers)


def connect_spreader(config: Config) -> Spreader:
    """Return the Ray cluster in RAY_ADDRESS, or this process, which uses all its cores."""
    if os.environ.get("RAY_ADDRESS") and config.search.engine == "ray":
        _require("ray", key="RAY_ADDRESS is set", way_out="search.engine=sequential")
        from rootstock.integrations.ray.spread import RaySpreader

        return RaySpreader(max_failures=config.search.max_failures)
    return InProcess()


def connect_racer(config: Config) -> Searcher:
    """Return the searcher for a race: the Ray cluster in RAY_ADDRESS, or this process.

    A race runs one trial after another; in a local Ray each trial would use one core of several.
    """
    if os.environ.get("RAY_ADDRESS"):
        return connect_searcher(config)
    return SequentialSearcher()


# SQLAlchemy unquotes the path of an SQLite URI; only these two would otherwise be misread.
SAFE_CHARACTERS = "".join(chr(code) for code in range(32, 127) if chr(code) not in "%?")


def _require(package: str, *, key: str, way_out: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{key}, but {package} is not installed",
            hint=f"pip install 'rootstock-vision[train]', or --set {way_out}",
        )
