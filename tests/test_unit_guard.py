"""A test without the marker `integration` starts no server, database, Ray or DVC."""

import socket
import sqlite3
import subprocess
import sys

import pytest

refused = pytest.raises(pytest.fail.Exception, match="has no marker `integration`, but starts")


def test_a_unit_test_cannot_listen():
    with refused:
        socket.create_server(("127.0.0.1", 0))


def test_a_unit_test_cannot_open_a_tracking_database(tmp_path):
    with refused:
        sqlite3.connect(tmp_path / "mlflow.db")
    sqlite3.connect(tmp_path / "index.db").close()


@pytest.mark.parametrize("module", ["services.inference", "mlflow", "dvc"])
def test_a_unit_test_cannot_start_a_server(module):
    with refused:
        subprocess.run([sys.executable, "-m", module, "--version"], check=False)


def test_a_unit_test_cannot_load_ray(monkeypatch):
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    with refused:
        import ray  # noqa: F401


@pytest.mark.integration
def test_an_integration_test_may_listen():
    socket.create_server(("127.0.0.1", 0)).close()
