"""Renamed, copied, or remounted projects keep their models, with real SQLite MLflow."""

import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from rootstock.cli.doctor import examine
from rootstock.config.paths import Paths
from rootstock.errors import TrackingError
from rootstock.integrations.connect import tracking_uri
from rootstock.integrations.mlflow.backup import backup, restore
from rootstock.integrations.mlflow.places import bring_home, check_model_folder, locate
from rootstock.integrations.mlflow.registry import MlflowRegistry
from rootstock.integrations.mlflow.tracking import MlflowRunLogger

pytestmark = pytest.mark.integration

MODEL = Path(__file__).parents[2] / "bundles_old/format-1.tar.xz"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    with tarfile.open(MODEL) as archive:
        archive.extractall(folder, filter="data")
    return folder / "lenet5"


@pytest.fixture
def project(mlflow_tables, model, tmp_path):
    """A project with a version and a run, in a folder whose name needs quoting."""
    folder = tmp_path / "mlruns" / "a project"
    folder.mkdir(parents=True)
    shutil.copy(mlflow_tables, folder / "mlflow.db")
    train(folder, model)
    return folder


def train(folder, model):
    uri = tracking_uri(Paths(folder))
    with MlflowRunLogger(uri, "home").run("train") as run:
        return MlflowRegistry(uri).register("m", model, run_id=run.id, tags={}, description="")


def files(folder):
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def download(folder, target, version="1"):
    registry = MlflowRegistry(tracking_uri(Paths(folder)))
    return registry.download(registry.find("m", version=version), target)


def addresses(folder):
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        queries = ("SELECT artifact_uri FROM runs", "SELECT artifact_location FROM experiments")
        return [row[0] for query in queries for row in database.execute(query)]


def test_a_renamed_project_keeps_its_models(project, model, tmp_path):
    renamed = project.rename(tmp_path / "renamed")
    assert files(model) <= files(download(renamed, tmp_path / "found"))
    assert any("a%20project" in one for one in addresses(renamed))
    train(renamed, model)
    assert not any("a%20project" in one for one in addresses(renamed))
    assert not project.exists()
    assert files(model) <= files(download(renamed, tmp_path / "again", "2"))


def test_a_copied_project_writes_nothing_into_the_original(project, model, tmp_path):
    copied = Path(shutil.copytree(project, tmp_path / "copied"))
    before = files(project)
    train(copied, model)
    assert files(project) == before
    shutil.rmtree(project)
    for version in ("1", "2"):
        assert files(model) <= files(download(copied, tmp_path / version, version))


def test_copied_database_reads_there_and_writes_here(project, model, tmp_path):
    (tmp_path / "copied").mkdir()
    shutil.copy(project / "mlflow.db", tmp_path / "copied/mlflow.db")
    before = files(project)
    train(tmp_path / "copied", model)
    assert files(project) == before
    for version in ("1", "2"):
        assert files(model) <= files(download(tmp_path / "copied", tmp_path / version, version))


def test_folder_of_artifacts_that_was_chosen_is_left(mlflow_tables, model, tmp_path):
    folder, chosen = tmp_path / "project", tmp_path / "shared/mlruns"
    folder.mkdir()
    shutil.copy(mlflow_tables, folder / "mlflow.db")
    uri = tracking_uri(Paths(folder))
    for _ in range(2):
        with MlflowRunLogger(uri, "home", artifact_root=chosen.as_uri()).run("train") as run:
            MlflowRegistry(uri).register("m", model, run_id=run.id, tags={}, description="")
    assert len(list(chosen.rglob("model.onnx"))) == 2
    assert not (folder / "mlruns").exists()
    assert bring_home(folder / "mlflow.db") == 0


def test_doctor_corrects_the_addresses_once(project, tmp_path, monkeypatch):
    renamed = project.rename(tmp_path / "renamed")
    monkeypatch.chdir(renamed)
    said = [
        next(one.detail for one in examine(Paths(renamed)) if one.name == "tracking")
        for _ in range(2)
    ]
    assert "the addresses in it are now corrected" in said[0]
    assert said[1].endswith("answers")
    assert not any("a%20project" in one for one in addresses(renamed))


def test_a_renamed_project_is_backed_up_whole(project, model, tmp_path):
    renamed = project.rename(tmp_path / "renamed")
    assert backup(tracking_uri(Paths(renamed)), tmp_path / "saved")["not_included"] == 0
    restore(tmp_path / "saved", tracking_uri(Paths(tmp_path / "new")))
    shutil.rmtree(renamed)
    assert files(model) <= files(download(tmp_path / "new", tmp_path / "found"))


@pytest.mark.parametrize("address", ["s3://bucket/mlruns/1/artifacts", "mlflow-artifacts:/1/a"])
def test_an_address_elsewhere_is_left(address, tmp_path):
    (tmp_path / "mlruns/1/artifacts").mkdir(parents=True)
    assert locate(address, tmp_path / "mlflow.db") == address


@pytest.mark.parametrize("trick", ["no model", "a file", "a link in a model"])
def test_non_model_folder_is_rejected_before_copying(project, tmp_path, monkeypatch, trick):
    """A person who may write to the database may name any folder that the service can read."""
    secret = tmp_path / "private"
    secret.mkdir()
    (secret / "key").write_text("secret")
    address = (secret / "key" if trick == "a file" else secret).as_uri()
    if trick == "a link in a model":
        (secret / "bundle.json").write_text("{}")
        (secret / "link").symlink_to(tmp_path)
    copied = []
    monkeypatch.setattr("mlflow.artifacts.download_artifacts", lambda **asked: copied.append(asked))
    with closing(sqlite3.connect(project / "mlflow.db")) as database, database:
        database.execute("UPDATE model_versions SET source = ?, storage_location = NULL", [address])
    with pytest.raises(TrackingError, match="not a model|no longer exist"):
        download(project, tmp_path / "got")
    assert copied == []
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize("address", ["s3://bucket/model", "mlflow-artifacts:/1/2/model"])
def test_files_of_store_elsewhere_are_checked_after_download(address):
    check_model_folder(address)
