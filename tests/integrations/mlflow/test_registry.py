import shutil

import pytest

from rootstock.errors import NoModelError, TrackingError
from rootstock.integrations.mlflow.client import mlflow_client
from rootstock.integrations.mlflow.database import sqlite_file
from rootstock.integrations.mlflow.registry import MlflowRegistry
from rootstock.integrations.mlflow.tracking import MlflowRunLogger

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def registry(mlflow_uri):
    return MlflowRegistry(mlflow_uri)


@pytest.fixture
def run_id(mlflow_uri):
    with MlflowRunLogger(mlflow_uri, "registry").run("train") as run:
        return run.id


@pytest.fixture
def name(request):
    """Give each test a separate model."""
    return request.node.name.replace("[", "-").replace("]", "")


def bundle(folder, text):
    (folder / "golden").mkdir(parents=True, exist_ok=True)
    (folder / "bundle.json").write_text(text)
    (folder / "golden/0.jpg").write_bytes(b"jpeg")
    return folder


def register(registry, name, source, run_id):
    return registry.register(name, source, run_id=run_id, tags={"gate": "won"}, description="d")


def test_registered_bundle_comes_back_whole(registry, name, run_id, tmp_path):
    entry = register(registry, name, bundle(tmp_path / "model", "one"), run_id)
    assert (entry.name, entry.version, entry.run_id) == (name, "1", run_id)
    fetched = registry.download(entry, tmp_path / "cache/model")
    assert fetched == tmp_path / "cache/model"
    assert (fetched / "bundle.json").read_text() == "one"
    assert (fetched / "golden/0.jpg").read_bytes() == b"jpeg"
    assert list(fetched.parent.iterdir()) == [fetched]


def test_second_model_of_a_run_leaves_the_first(registry, name, run_id, tmp_path):
    first = register(registry, name, bundle(tmp_path / "model", "one"), run_id)
    second = register(registry, name, bundle(tmp_path / "model", "two"), run_id)
    texts = [
        (registry.download(entry, tmp_path / "cache") / "bundle.json").read_text()
        for entry in (first, second, first)
    ]
    assert texts == ["one", "two", "one"]
    assert [entry.version for entry in registry.versions(name)] == ["1", "2"]


def test_aliases_move_and_vanish(registry, name, run_id, tmp_path):
    for text in ("one", "two"):
        register(registry, name, bundle(tmp_path / "model", text), run_id)
    registry.set_alias(name, "champion", "1")
    assert registry.find(name, alias="champion").version == "1"
    registry.set_alias(name, "champion", "2")
    assert registry.find(name, version="2").aliases == ("champion",)
    assert registry.find(name, version="1").aliases == ()
    registry.drop_alias(name, "champion")
    registry.drop_alias(name, "champion")
    with pytest.raises(
        NoModelError, match="has no alias 'champion'; aliases: none; versions: 1, 2"
    ):
        registry.find(name, alias="champion")


def test_tags_are_added(registry, name, run_id, tmp_path):
    register(registry, name, bundle(tmp_path / "model", "one"), run_id)
    registry.set_tags(name, "1", {"accuracy": "0.9"})
    (entry,) = registry.versions(name)
    assert entry.tags == {"gate": "won", "accuracy": "0.9"}


def test_unknown_model_lists_the_known(registry, name, run_id, tmp_path):
    register(registry, name, bundle(tmp_path / "model", "one"), run_id)
    with pytest.raises(NoModelError, match=f"no registered model 'nobody'; registered: .*{name}"):
        registry.find("nobody", alias="champion")
    assert registry.versions("nobody") == []
    registry.drop_alias("nobody", "champion")


@pytest.mark.parametrize("version", ["7", "seven"])
def test_unknown_version_lists_the_known(registry, name, run_id, tmp_path, version):
    register(registry, name, bundle(tmp_path / "model", "one"), run_id)
    with pytest.raises(NoModelError, match=f"has no version '{version}'; .*versions: 1"):
        registry.set_alias(name, "champion", version)


def test_registering_needs_a_run(registry, tmp_path):
    with pytest.raises(TrackingError, match="needs the run that made it"):
        register(registry, "x", bundle(tmp_path / "model", "one"), "")


def test_lost_files_are_named_and_old_copy_stays(registry, name, run_id, tmp_path, client):
    entry = register(registry, name, bundle(tmp_path / "model", "one"), run_id)
    fetched = registry.download(entry, tmp_path / "cache")
    assert registry.holds_files(entry)
    shutil.rmtree(client.get_run(run_id).info.artifact_uri.removeprefix("file://"))
    assert not registry.holds_files(entry)
    with pytest.raises(TrackingError, match=f"version 1 of '{name}'"):
        registry.download(entry, fetched)
    assert (fetched / "bundle.json").read_text() == "one"
    assert not list(tmp_path.glob(".cache-*"))


def test_everything_works_through_a_server(server, name, tmp_path):
    with MlflowRunLogger(server, "served").run("train") as run:
        run.log_params({"a": 1})
        run.log_metrics({"loss": float("nan"), "acc": 0.5})
    registry = MlflowRegistry(server)
    entry = register(registry, name, bundle(tmp_path / "model", "one"), run.id)
    registry.set_alias(name, "champion", entry.version)
    found = registry.find(name, alias="champion")
    assert (found.version, found.aliases, found.tags) == ("1", ("champion",), {"gate": "won"})
    fetched = registry.download(found, tmp_path / "cache")
    assert (fetched / "bundle.json").read_text() == "one"
    with pytest.raises(NoModelError, match="has no alias 'challenger'; aliases: champion"):
        registry.find(name, alias="challenger")
    with pytest.raises(NoModelError, match="no registered model 'nobody'"):
        registry.find("nobody", version="1")


def test_service_reads_a_replaced_database(mlflow_uri, tmp_path, monkeypatch):
    """Replace the file like a restore; a pooled connection would keep reading the old one."""
    from rootstock.service.http.app import _connect

    monkeypatch.delenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(TrackingError, match="there is no registry"):
        _connect(tmp_path)
    MlflowRegistry(mlflow_uri).versions("restored")
    for name in ("mlflow.db", "other.db"):
        shutil.copy(sqlite_file(mlflow_uri), tmp_path / name)
    other = mlflow_client(f"sqlite:///{tmp_path}/other.db")
    other.create_registered_model("restored")
    other.create_model_version("restored", source="runs:/0/model")
    assert _connect(tmp_path).versions("restored") == []
    (tmp_path / "other.db").replace(tmp_path / "mlflow.db")
    assert [entry.version for entry in _connect(tmp_path).versions("restored")] == ["1"]
