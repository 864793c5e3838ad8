import os
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rootstock.config.paths import Paths
from rootstock.config.schema import Config, SearchConfig, TrackingConfig
from rootstock.errors import ConfigError, TrackingError
from rootstock.integrations import connect
from rootstock.integrations.connect import (
    check_tracking,
    connect_racer,
    connect_registry,
    connect_runs,
    connect_searcher,
    tracking_uri,
)
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import LocalFirst, SequentialSearcher

OFF = Config(tracking=TrackingConfig(enabled=False), search=SearchConfig(engine="sequential"))


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.delitem(os.environ, "MLFLOW_TRACKING_URI", raising=False)


def test_tracking_off_connects_nothing(tmp_path):
    assert isinstance(connect_runs(OFF, Paths(tmp_path)), NullRunLogger)
    assert connect_registry(OFF, Paths(tmp_path)) is None


def test_sequential_engine_needs_no_ray():
    assert isinstance(connect_searcher(OFF), SequentialSearcher)


def test_default_uri_is_absolute_below_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tracking_uri(Paths(tmp_path / "a b")) == f"sqlite:///{tmp_path}/a b/mlflow.db"


def test_percent_sign_in_path_is_quoted(tmp_path):
    assert tracking_uri(Paths(tmp_path / "50%")).endswith("/50%25/mlflow.db")


def test_variable_overrides_default_uri(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert tracking_uri(Paths(tmp_path)) == "http://tracking:5000"


def test_relative_sqlite_variable_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    assert tracking_uri(Paths(tmp_path)) == f"sqlite:///{tmp_path}/runs.db"


def test_try_of_dvc_uses_registry_of_its_project(tmp_path, monkeypatch):
    tried = tmp_path / ".dvc/tmp/exps/standalone/tmpab12"
    for repository in (tmp_path, tried):
        (repository / ".git").mkdir(parents=True)
    monkeypatch.chdir(tried)
    monkeypatch.setitem(os.environ, "DVC_ROOT", str(tmp_path))
    assert tracking_uri(Paths(tried)) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setitem(os.environ, "MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    assert tracking_uri(Paths(tried)) == f"sqlite:///{tmp_path}/runs.db"


class _Refusing(BaseHTTPRequestHandler):
    """A server with accounts, called without an account."""

    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b'{"error_code": "PERMISSION_DENIED", "message": "You are not authenticated."}'
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.do_GET()

    def log_message(self, *_):
        pass


@pytest.mark.integration
def test_rejected_login_names_variables_before_any_work(tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(os.environ, "MLFLOW_TRACKING_URI", uri)
    try:
        with pytest.raises(TrackingError, match="MLFLOW_TRACKING_PASSWORD") as caught:
            check_tracking(Config(), Paths(tmp_path))
        check_tracking(OFF, Paths(tmp_path))
    finally:
        server.shutdown()
        server.server_close()
    assert "check the server" not in str(caught.value)
    assert "not authenticated" in str(caught.value)


def test_bare_database_keeps_files_in_project(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "MLFLOW_TRACKING_URI", "postgresql://db/mlflow")
    runs = connect_runs(Config(), Paths(tmp_path))
    assert runs.artifact_root == (tmp_path / "mlruns").as_uri()


def test_connections_travel_to_workers(tmp_path):
    for connected in (connect_runs(Config(), Paths(tmp_path)), connect_searcher(Config())):
        assert pickle.loads(pickle.dumps(connected)) == connected


def test_missing_package_names_install_and_switch(tmp_path, monkeypatch):
    monkeypatch.setattr(connect.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"mlflow is not installed[\s\S]*tracking.enabled=false"):
        connect_runs(Config(), Paths(tmp_path))
    with pytest.raises(ConfigError, match=r"ray is not installed[\s\S]*search.engine=sequential"):
        connect_searcher(Config())


def test_race_runs_in_this_process_without_a_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert isinstance(connect_racer(Config()), SequentialSearcher)
    monkeypatch.setenv("RAY_ADDRESS", "ray://somewhere:10001")
    assert not isinstance(connect_racer(Config()), SequentialSearcher)


def test_the_search_is_spread_as_its_settings_say(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    settings = {"cpus_per_trial": 2.5, "gpus_per_trial": 0.5, "max_failures": 7, "concurrent": 4}
    usual, searcher = (
        connect_searcher(Config(search=SearchConfig(**given))) for given in ({}, settings)
    )
    for name, value in settings.items():
        assert getattr(searcher.workers, name) == value
        assert getattr(usual.workers, name) != value


def test_every_search_goes_to_a_cluster(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://somewhere:10001")
    assert not isinstance(connect_searcher(Config()), LocalFirst)


def test_runs_use_experiment_and_patience_of_settings(tmp_path):
    settings = TrackingConfig(experiment="insects", patience=7.0)
    runs = connect_runs(Config(tracking=settings), Paths(tmp_path))
    assert (runs.experiment, runs.patience) == ("insects", 7.0)
