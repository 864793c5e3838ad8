"""One MLflow database for all tests of a process, because creating its tables takes seconds."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from rootstock.integrations.mlflow.client import prepare_mlflow
from rootstock.integrations.mlflow.registry import MlflowRegistry


@pytest.fixture(scope="session")
def quiet():
    """Return the environment of a command that uses MLflow or Ray."""
    before = dict(os.environ)
    prepare_mlflow()
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def mlflow_tables(quiet, tmp_path_factory):
    """An SQLite file with MLflow's empty tables, for quick copies."""
    file = tmp_path_factory.mktemp("tables") / "mlflow.db"
    MlflowRegistry(f"sqlite:///{file}").versions("rootstock")
    return file


@pytest.fixture(scope="session")
def mlflow_uri(mlflow_tables, tmp_path_factory):
    """The URI of an SQLite database in a separate folder."""
    return f"sqlite:///{shutil.copy(mlflow_tables, tmp_path_factory.mktemp('mlflow'))}"


@pytest.fixture
def client(mlflow_uri):
    """MLflow's view of the database."""
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri, registry_uri=mlflow_uri)


@pytest.fixture(scope="session")
def server(mlflow_uri):
    """A tracking server over the same database that stores files."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = Path(mlflow_uri.removeprefix("sqlite:///")).parent
    command = [sys.executable, "-m", "mlflow", "server", "-w", "1", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--backend-store-uri", mlflow_uri]
    command += ["--artifacts-destination", str(folder / "served")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url):
    for _ in range(300):
        try:
            return urllib.request.urlopen(url, timeout=2).read()
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} did not answer")


@pytest.fixture(scope="session")
def postgres():
    """The URI of a database in a new PostgreSQL; skipped if it is not installed."""
    pytest.importorskip("psycopg2")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed below /usr/lib/postgresql")
    # Not below pytest's folder, which other users may not enter.
    binaries, folder = found[-1].parent, Path(tempfile.mkdtemp(prefix="rootstock-postgres-"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # It refuses to run as root.
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(folder, "postgres")
    data = folder / "data"
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    subprocess.run([*user, binaries / "initdb", "-D", data, "-A", "trust", "-U", "mlflow"], **quiet)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    control = [*user, binaries / "pg_ctl", "-D", data, "-l", folder / "data/log"]
    subprocess.run([*control, "-w", "-o", options, "start"], **quiet)
    try:
        yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)
        shutil.rmtree(folder, ignore_errors=True)
