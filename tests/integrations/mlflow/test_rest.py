"""The reader of a tracking server, compared with MLflow's client, and against bad servers."""

import base64
import importlib.util
import json
import shutil
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rootstock.client import Client
from rootstock.errors import NoModelError, TrackingError
from rootstock.integrations.mlflow import rest
from rootstock.integrations.mlflow.registry import MlflowRegistry
from rootstock.integrations.mlflow.rest import RestRegistry
from rootstock.integrations.mlflow.tracking import MlflowRunLogger
from rootstock.model.predictor import Predictor
from rootstock.ports.registry import RegistryEntry
from tests.bundles import jpeg, tiny_bundle
from tests.integrations.conftest import wait_for
from tests.packaging.environments import (
    ROOT,
    clean_variables,
    make_environment,
    requirements_of,
)
from tests.service.test_serve import serving_command

pytestmark = pytest.mark.integration
ENTRY = RegistryEntry("flowers", "1", "run")


@pytest.fixture
def alone(monkeypatch):
    """Prevent downloads by MLflow's client."""
    monkeypatch.setattr(rest, "MlflowRegistry", None)


@pytest.fixture(scope="module")
def model(server, tmp_path_factory):
    """A name with two versions, stored by the server; the first one is the champion."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "golden").mkdir()
    (folder / "golden/a b.jpg").write_bytes(b"jpeg")
    registry = MlflowRegistry(server)
    for text in ("one", "two"):
        (folder / "bundle.json").write_text(text)
        with MlflowRunLogger(server, "rest").run("train") as run:
            registry.register("read", folder, run_id=run.id, tags={"gate": "won"}, description="d")
    registry.set_alias("read", "champion", "1")
    return "read"


@contextmanager
def answering(answers):
    """A server with answers by path, (status, text); yields its address and the requests."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self)
            path = self.path.partition("?")[0].removeprefix("/api/2.0/")
            status, text = answers.get(path, (404, "not here"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", requests
        http.shutdown()


def keeping(uri):
    """Return a registry whose version has its files at this address."""
    return {"mlflow/model-versions/get-download-uri": (200, json.dumps({"artifact_uri": uri}))}


def test_it_finds_what_mlflows_own_client_finds(server, model):
    reader, own = RestRegistry(server), MlflowRegistry(server)
    assert reader.find(model, alias="champion") == own.find(model, alias="champion")
    assert reader.find(model, version="2") == own.find(model, version="2")
    assert reader.versions(model) == own.versions(model)
    assert [entry.aliases for entry in reader.versions(model)] == [("champion",), ()]
    assert reader.versions("nobody") == []


def test_service_without_mlflow_serves_champion_of_server(server, tmp_path):
    registry = MlflowRegistry(server)
    with MlflowRunLogger(server, "rest").run("train") as run:
        entry = registry.register("thin", tiny_bundle(), run_id=run.id, tags={}, description="d")
    registry.set_alias("thin", "champion", entry.version)
    programs = make_environment(tmp_path / "env", requirements_of("serve"))
    variables = {"PYTHONPATH": str(ROOT / "src"), "MLFLOW_TRACKING_URI": server}
    command = ["-m", "rootstock", "serve", "--port", "0", "--model", "models:/thin@champion"]
    variables = clean_variables() | variables
    command = [programs / "python", *command]
    with serving_command(command, folder=tmp_path, variables=variables) as address:
        wait_for(f"{address}/readyz")
        with Client(address) as client:
            (answer,) = client.predict([jpeg(0)])
            assert client.model()["version"] == entry.version
    assert answer.label == Predictor(tiny_bundle()).predict([jpeg(0)])[0].label


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("nobody", {"alias": "champion"}),
        ("nobody", {"version": "1"}),
        ("read", {"alias": "challenger"}),
        ("read", {"version": "7"}),
        ("read", {"version": "seven"}),
    ],
)
def test_missing_entries_have_the_same_errors(server, model, name, wanted):
    with pytest.raises(NoModelError) as own:
        MlflowRegistry(server).find(name, **wanted)
    with pytest.raises(NoModelError) as ours:
        RestRegistry(server).find(name, **wanted)
    assert str(ours.value) == str(own.value)


def test_version_comes_whole_in_place_of_older_one(server, model, alone, tmp_path):
    reader, target = RestRegistry(server + "/"), tmp_path / "cache/model"
    for version, text in (("1", "one"), ("2", "two")):
        assert reader.download(reader.find(model, version=version), target) == target
        assert (target / "bundle.json").read_text() == text
        assert (target / "golden/a b.jpg").read_bytes() == b"jpeg"
    assert list(target.parent.iterdir()) == [target]


def test_files_in_folder_of_this_machine_are_copied(server, mlflow_uri, client, tmp_path, alone):
    (tmp_path / "bundle.json").write_text("one")
    registry = MlflowRegistry(mlflow_uri)
    with MlflowRunLogger(mlflow_uri, "beside").run("train") as run:
        registry.register("beside", tmp_path, run_id=run.id, tags={}, description="d")
    reader = RestRegistry(server)
    entry = reader.find("beside", version="1")
    assert (reader.download(entry, tmp_path / "got") / "bundle.json").read_text() == "one"
    shutil.rmtree(client.get_run(run.id).info.artifact_uri.removeprefix("file://"))
    with pytest.raises(NoModelError, match="the files of version 1 of 'beside' no longer exist"):
        reader.download(entry, tmp_path / "got")
    assert (tmp_path / "got/bundle.json").read_text() == "one"


def test_local_folder_that_is_not_model_is_rejected(tmp_path, monkeypatch, alone):
    (tmp_path / "key").write_text("secret")
    reader = RestRegistry("http://127.0.0.1:9")
    monkeypatch.setattr(RestRegistry, "_artifact_uri", lambda *_: tmp_path.as_uri())
    with pytest.raises(TrackingError, match="which is not a model"):
        reader.download(ENTRY, tmp_path / "got")
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize("uri", ["s3://bucket/model", "mlflow-artifacts://elsewhere:5000/model"])
def test_files_that_only_mlflow_can_fetch_are_named(uri, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with (
        answering(keeping(uri)) as (address, _),
        pytest.raises(
            TrackingError, match=rf"{uri}.*mlflow is not installed[\s\S]*vision\[train\]"
        ),
    ):
        RestRegistry(address).download(ENTRY, tmp_path / "model")


@pytest.mark.parametrize("name", ["../evil", "..", "", "/etc/passwd", "a\\b"])
def test_a_listing_cannot_leave_the_folder(name, tmp_path):
    listing = json.dumps({"files": [{"path": name, "is_dir": False}]})
    answers = keeping("mlflow-artifacts:/1/model") | {"mlflow-artifacts/artifacts": (200, listing)}
    with (
        answering(answers) as (address, _),
        pytest.raises(TrackingError, match="lists an invalid file name"),
    ):
        RestRegistry(address).download(ENTRY, tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (401, "You are not authenticated.", "HTTP 401: You are not authenticated.*\\n.*USERNAME"),
        (500, "<h1>oh</h1>", "HTTP 500: <h1>oh</h1>\\n.*its log"),
        (404, "not here", "HTTP 404: not here\\n.*check the server"),
        (200, "<html>", "not an MLflow server"),
        (200, "[]", "not an MLflow server"),
        (200, "{}", "not an MLflow server"),
    ],
)
def test_rejecting_or_wrong_server_is_an_error(status, text, message):
    call = "mlflow/registered-models/alias"
    with (
        answering({call: (status, text)}) as (address, _),
        pytest.raises(TrackingError, match=message) as told,
    ):
        RestRegistry(address).find("flowers", alias="champion")
    assert not isinstance(told.value, NoModelError)


def test_unreachable_server_error_hides_password():
    with answering({}) as (address, _):
        pass
    uri = address.replace("//", "//user:swordfish@")
    with pytest.raises(TrackingError, match="check the server") as told:
        RestRegistry(uri).find("flowers", alias="champion")
    assert "swordfish" not in str(told.value)


@pytest.mark.parametrize(
    ("variables", "sent"),
    [
        ({"USERNAME": "ann", "PASSWORD": "p:w"}, f"Basic {base64.b64encode(b'ann:p:w').decode()}"),
        ({"TOKEN": "abc"}, "Bearer abc"),
        ({}, f"Basic {base64.b64encode(b'file:pass%word').decode()}"),
    ],
)
def test_credentials_are_read_like_mlflow_does(variables, sent, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    if not variables:
        (tmp_path / ".mlflow").mkdir()
        (tmp_path / ".mlflow/credentials").write_text(
            "[mlflow]\nmlflow_tracking_username = file\nmlflow_tracking_password = pass%word\n"
        )
    for name, value in variables.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    with answering({}) as (address, requests):
        with pytest.raises(TrackingError, match="HTTP 404"):
            RestRegistry(address).versions("flowers")
        assert requests[0].headers["Authorization"] == sent


def test_a_plugin_of_mlflow_is_rejected_by_name(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "kubernetes")
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_AUTH needs MLflow's own client"):
        RestRegistry("http://127.0.0.1:9").versions("flowers")
