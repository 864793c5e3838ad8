"""A run continues after MLflow, or the training process, died."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import psutil
import pytest

from rootstock.errors import NoModelError, TrackingError
from rootstock.integrations.mlflow.registry import MlflowRegistry
from rootstock.integrations.mlflow.tracking import MlflowRunLogger
from rootstock.training.resume import resumed_run
from tests.integrations.conftest import wait_for

pytestmark = pytest.mark.integration


def history(client, run_id, name="acc"):
    return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


def test_a_run_that_was_killed_is_continued(mlflow_uri, client, tmp_path):
    runs, record = MlflowRunLogger(mlflow_uri, "outage"), tmp_path / "run.json"
    ids = []

    def be_killed():
        with resumed_run(runs, record, "a") as (run, fresh):
            ids.append((run.id, fresh))
            run.log_metrics({"acc": 0.5}, step=1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_killed()
    with resumed_run(runs, record, "a") as (again, fresh):
        again.log_metrics({"acc": 0.6}, step=2)
    assert [*ids, (again.id, fresh)] == [(again.id, True), (again.id, False)]
    assert history(client, again.id) == [(1, 0.5), (2, 0.6)]
    assert client.get_run(again.id).info.status == "FINISHED"


@pytest.mark.parametrize("noted", [{"run": "0" * 32, "parent": ""}, {"run": "x", "parent": "p"}])
def test_missing_run_is_started_again(mlflow_uri, tmp_path, noted):
    record = tmp_path / "run.json"
    record.write_text(json.dumps(noted))
    with resumed_run(MlflowRunLogger(mlflow_uri, "outage"), record, "a") as (run, fresh):
        assert fresh
    assert json.loads(record.read_text())["run"] == run.id


def test_call_that_is_made_twice_is_kept_once(mlflow_uri, client, monkeypatch):
    runs = MlflowRunLogger(mlflow_uri, "outage", patience=30)
    from mlflow import MlflowClient

    def lose_the_answer(self, *arguments, _send=MlflowClient.log_batch, **others):
        _send(self, *arguments, **others)
        if not lost:
            lost.append(1)
            raise ConnectionResetError("the answer was lost")

    lost = []
    with runs.run("a") as run:
        monkeypatch.setattr(MlflowClient, "log_batch", lose_the_answer)
        run.log_metrics({"acc": 0.5}, step=1)
    assert lost
    assert history(client, run.id) == [(1, 0.5)]


def test_what_mlflow_refuses_is_not_sent_again(mlflow_uri):
    runs = MlflowRunLogger(mlflow_uri, "outage", patience=60)
    began = time.monotonic()
    with runs.run("a") as run:
        run.log_params({"rate": 1})
        with pytest.raises(TrackingError, match="rate"):
            run.log_params({"rate": 2})
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_server_restart_neither_loses_nor_doubles_entries(tmp_path):
    from mlflow import MlflowClient

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    uri, processes = f"http://127.0.0.1:{port}", []

    def start():
        command = [sys.executable, "-m", "mlflow", "server", "-w", "1", "--port", str(port)]
        command += ["--host", "127.0.0.1", "--artifacts-destination", str(tmp_path / "files")]
        command += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
        processes.append(
            subprocess.Popen(
                command,
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def kill():
        os.killpg(processes[-1].pid, signal.SIGKILL)
        processes[-1].wait()

    start()
    try:
        wait_for(f"{uri}/health")
        with MlflowRunLogger(uri, "outage", patience=120).run("a") as run:
            run.log_metrics({"acc": 0.1}, step=1)
            kill()
            later = threading.Timer(3, start)
            later.start()
            for step in (2, 3):
                run.log_metrics({"acc": 0.1 * step}, step=step)
            (tmp_path / "plan.md").write_text("why")
            run.log_files(tmp_path / "plan.md")
        client = MlflowClient(uri)
        assert [step for step, _ in history(client, run.id)] == [1, 2, 3]
        assert [file.path for file in client.list_artifacts(run.id)] == ["plan.md"]
        assert client.get_run(run.id).info.status == "FINISHED"
    finally:
        kill()


@contextmanager
def no_file_above(size, server):
    """Simulate a full disk: the server's processes may write no file larger than ``size``."""
    # The command lines of the server and its workers contain the port
    port = f"--port {server.rpartition(':')[2]}"
    processes = psutil.process_iter(["cmdline"])
    named = [one for one in processes if port in " ".join(one.info["cmdline"] or ())]
    family = {*named, *(child for one in named for child in one.children(recursive=True))}
    before = {one.pid: one.rlimit(psutil.RLIMIT_FSIZE) for one in family}
    for one in family:
        one.rlimit(psutil.RLIMIT_FSIZE, (size, before[one.pid][1]))
    try:
        yield
    finally:
        for one in family:
            one.rlimit(psutil.RLIMIT_FSIZE, before[one.pid])


def test_full_artifact_volume_leaves_no_half_of_version(server, tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "weights.safetensors").write_bytes(os.urandom(30_000_000))
    registry = MlflowRegistry(server)
    model = {"run_id": "", "tags": {}, "description": ""}
    with MlflowRunLogger(server, "full").run("train") as run:
        model["run_id"] = run.id
        started = time.monotonic()
        with (
            no_file_above(20_000_000, server),
            pytest.raises(TrackingError, match=r"(?s)cannot upload .*volume is full"),
        ):
            registry.register("full", bundle, **model)
        assert time.monotonic() - started < 60
        with pytest.raises(NoModelError):
            registry.find("full", version="1")
        entry = registry.register("full", bundle, **model)
    assert entry.version == "1"
    found = registry.download(entry, tmp_path / "found")
    content = (found / "weights.safetensors").read_bytes()
    assert content == (bundle / "weights.safetensors").read_bytes()
