"""A real service follows a real MLflow: fifty champions under load, and a server that dies."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from rootstock.integrations.mlflow.registry import MlflowRegistry
from rootstock.integrations.mlflow.tracking import MlflowRunLogger
from rootstock.model.predictor import Predictor
from tests.bundles import jpeg, tiny_bundle, write_tiny_bundle
from tests.integrations.conftest import wait_for
from tests.service.test_serve import metrics_of, running, wait_until

pytestmark = pytest.mark.integration
SWAPS, CLIENTS = 50, 16
HEADERS = {"content-type": "image/jpeg"}


def register(uri, bundles):
    """Make each bundle a version; return the registry, and each version's answer for `jpeg(0)`."""
    registry, shares = MlflowRegistry(uri), {}
    for bundle in bundles:
        with MlflowRunLogger(uri, "home").run("train") as run:
            entry = registry.register(
                "rootstock", bundle, run_id=run.id, tags={}, description="one of two"
            )
        shares[entry.version] = Predictor(bundle).predict([jpeg(0)])[0].probability
    registry.set_alias("rootstock", "champion", "1")
    return registry, shares


@pytest.fixture
def bundles(tmp_path):
    """Two models that give different probabilities for the same image."""
    second = write_tiny_bundle(tmp_path / "second", calibration={"temperature": 4.0})
    return tiny_bundle(), second.directory


def ask(client):
    answer = client.post("/v1/predict", content=jpeg(0), headers=HEADERS)
    body = answer.json()
    return answer.status_code, body["model"]["version"], body["predictions"][0]["top"][0]


def test_fifty_swaps_under_load_give_matching_answers(mlflow_tables, tmp_path, bundles):
    shutil.copy(mlflow_tables, tmp_path / "mlflow.db")
    registry, shares = register(f"sqlite:///{tmp_path / 'mlflow.db'}", bundles)
    assert len({round(share, 3) for share in shares.values()}) == 2
    with running(ROOTSTOCK_ROOT=str(tmp_path), ROOTSTOCK_POLL_SECONDS="0.05") as (address, _):
        wait_for(f"{address}/readyz")
        seen, wrong, stop = {}, [], threading.Event()

        def keep_asking():
            with httpx.Client(base_url=address, timeout=30) as client:
                while not stop.is_set():
                    try:
                        status, version, top = ask(client)
                    except Exception as error:  # noqa: BLE001 - it fails the test below
                        wrong.append(repr(error))
                        return
                    seen[version] = seen.get(version, 0) + 1
                    if status != 200 or abs(top["probability"] - shares[version]) > 1e-4:
                        wrong.append((status, version, top))

        askers = [threading.Thread(target=keep_asking) for _ in range(CLIENTS)]
        for asker in askers:
            asker.start()
        try:
            with httpx.Client(base_url=address, timeout=30) as client:
                for swap in range(SWAPS):
                    version = str(2 - swap % 2)
                    registry.set_alias("rootstock", "champion", version)
                    wait_until(lambda: ask(client)[1] == version, 60)  # noqa: B023
        finally:
            stop.set()
            for asker in askers:
                asker.join()
        assert f'swaps_total{{outcome="swapped",role="champion"}} {SWAPS + 1}.0' in metrics_of(
            address
        )
    assert wrong == []
    assert min(seen.values()) > SWAPS


@contextmanager
def mlflow_server(folder, port):
    """A tracking server, killed at the end with all its processes."""
    command = [sys.executable, "-m", "mlflow", "server", "-w", "1", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "served")]
    process = subprocess.Popen(
        command,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_dead_tracking_server_does_not_affect_answers(mlflow_tables, tmp_path, bundles):
    shutil.copy(mlflow_tables, tmp_path / "mlflow.db")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ExitStack() as service:
        with mlflow_server(tmp_path, port) as uri:
            registry, _ = register(uri, bundles)
            address, _ = service.enter_context(
                running(
                    ROOTSTOCK_ROOT=str(tmp_path),
                    MLFLOW_TRACKING_URI=uri,
                    ROOTSTOCK_POLL_SECONDS="0.2",
                    MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
                )
            )
            wait_for(f"{address}/readyz")
        client = service.enter_context(httpx.Client(base_url=address, timeout=30))
        wait_until(lambda: "rootstock_registry_up 0.0" in metrics_of(address), 60)
        assert ask(client)[:2] == (200, "1")
        assert client.get("/readyz").status_code == 200
        with mlflow_server(tmp_path, port):
            registry.set_alias("rootstock", "champion", "2")
            wait_until(lambda: ask(client)[1] == "2", 60)
            assert "rootstock_registry_up 1.0" in metrics_of(address)
