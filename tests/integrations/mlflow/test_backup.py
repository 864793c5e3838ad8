"""A registry is backed up and restored elsewhere, with real SQLite MLflow and a real model."""

import json
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from rootstock.cli.main import main
from rootstock.config.paths import Paths
from rootstock.errors import ArtifactError, TrackingError
from rootstock.integrations.connect import tracking_uri
from rootstock.integrations.mlflow.backup import backup, restore
from rootstock.integrations.mlflow.registry import MlflowRegistry
from rootstock.integrations.mlflow.tracking import MlflowRunLogger
from rootstock.registry.champion import promote, settle

pytestmark = pytest.mark.integration

MODEL = Path(__file__).parents[2] / "bundles_old/format-1.tar.xz"
"""A complete model that is smaller and created faster than a new one."""


@pytest.fixture(scope="module")
def home(mlflow_tables, tmp_path_factory):
    """A project with a champion, and its back-up."""
    folder = tmp_path_factory.mktemp("project with space")
    shutil.copy(mlflow_tables, folder / "mlflow.db")
    with tarfile.open(MODEL) as archive:
        archive.extractall(folder / "model", filter="data")
    uri = tracking_uri(Paths(folder))
    with MlflowRunLogger(uri, "home").run("train") as run:
        registry = MlflowRegistry(uri)
        registry.register(
            "rootstock", folder / "model/lenet5", run_id=run.id, tags={}, description="d"
        )
    promote(registry, "rootstock", "1", why="the first")
    backup(uri, folder / "saved")
    return folder


@pytest.fixture
def saved(home, tmp_path):
    return Path(shutil.copytree(home / "saved", tmp_path / "saved"))


def test_a_restored_project_predicts_and_keeps_its_history(
    saved, home, tmp_path, monkeypatch, capsys
):
    project = tmp_path / "new"
    project.mkdir()
    monkeypatch.chdir(project)
    # The restored project must not use the backed-up one.
    hidden = home / "mlruns"
    hidden.rename(home / "hidden")
    try:
        main(["restore", str(saved)])
        main(["predict", str(home / "model/images/0.jpg"), "--json"])
    finally:
        (home / "hidden").rename(hidden)
    out = capsys.readouterr().out
    assert "restored" in out
    assert json.loads(out[out.index("{") :])["predictions"][0]["top"][0]["label"] == "tulip"
    with closing(sqlite3.connect(project / "mlflow.db")) as database:
        places = database.execute("SELECT artifact_location FROM experiments").fetchall()
    assert not [place for (place,) in places if "project%20with" in place or str(home) in place]
    registry = MlflowRegistry(tracking_uri(Paths(project)))
    assert [change.why for change in settle(registry, "rootstock")] == ["the first"]


def test_a_restore_overwrites_nothing(saved, home):
    with pytest.raises(ArtifactError, match="exists already, and a restore never overwrites"):
        restore(saved, tracking_uri(Paths(home)))


def test_a_backup_overwrites_nothing(home, saved):
    with pytest.raises(ArtifactError, match="saved exists already"):
        backup(tracking_uri(Paths(home)), saved)


def test_backup_must_be_outside_the_copied_folder(home):
    with pytest.raises(ArtifactError, match="is inside the folder to copy"):
        backup(tracking_uri(Paths(home)), home / "mlruns/saved")


def test_a_backup_of_nothing_is_an_error(mlflow_tables, tmp_path):
    shutil.copy(mlflow_tables, tmp_path / "mlflow.db")
    with pytest.raises(ArtifactError, match="mlflow.db is empty"):
        backup(tracking_uri(Paths(tmp_path)), tmp_path / "saved")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_damaged_database_is_not_backed_up(saved, tmp_path):
    database = saved / "mlflow.db"
    with database.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 40_000)
    with pytest.raises(ArtifactError, match="mlflow.db is damaged(.|\n)*an earlier backup"):
        backup(tracking_uri(Paths(saved)), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_locked_database_is_not_called_damaged(saved, tmp_path):
    with closing(sqlite3.connect(saved / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ArtifactError, match="cannot be copied: database is locked"):
            backup(tracking_uri(Paths(saved)), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_runs_of_mlflows_default_experiment_are_included(saved, home, tmp_path):
    """Its location is a path, not a URI."""
    from rootstock.integrations.mlflow.client import mlflow_client

    restore(saved, tracking_uri(Paths(tmp_path / "new")))
    mlflow_client(tracking_uri(Paths(tmp_path / "new"))).create_run("0")
    with closing(sqlite3.connect(tmp_path / "new/mlflow.db")) as database, database:
        place = str(tmp_path / "new/mlruns/0")
        database.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (place,)
        )
    assert backup(tracking_uri(Paths(tmp_path / "new")), tmp_path / "again")["not_included"] == 0


def test_versions_whose_files_are_gone_are_named(saved, tmp_path, monkeypatch, capsys):
    restore(saved, tracking_uri(Paths(tmp_path / "new")))
    shutil.rmtree(next((tmp_path / "new").rglob("model.onnx")).parent)
    monkeypatch.chdir(tmp_path / "new")
    main(["backup", str(tmp_path / "again")])
    assert "the files of 1 versions no longer exist" in capsys.readouterr().err
    facts = json.loads((tmp_path / "again/backup.json").read_text())
    assert facts["without_files"] == ["rootstock 1"]


def test_a_folder_that_cannot_be_made_is_reported(home):
    with pytest.raises(ArtifactError, match="cannot be written"):
        backup(tracking_uri(Paths(home)), home / ("x" * 300))
    with pytest.raises(ArtifactError, match="cannot be written"):
        backup(tracking_uri(Paths(home)), Path("/proc/saved"))


def test_an_index_without_files_is_damaged(saved, tmp_path):
    (saved / "backup.json").write_text('{"format_version": 1}')
    with pytest.raises(ArtifactError, match="is damaged: it lists no files"):
        restore(saved, tracking_uri(Paths(tmp_path / "new")))


@pytest.mark.parametrize("harm", ["damaged", "missing", "not part of the backup"])
def test_a_harmed_backup_is_rejected_and_nothing_restored(saved, tmp_path, harm):
    file = next(saved.rglob("model.onnx"))
    if harm == "damaged":
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    elif harm == "missing":
        file.unlink()
    else:
        (saved / "mlruns/stowaway").write_text("x")
    with pytest.raises(ArtifactError, match=f"1 files are {harm}, the first is mlruns/"):
        restore(saved, tracking_uri(Paths(tmp_path / "new")))
    assert not (tmp_path / "new").exists()


def test_an_unfinished_backup_is_not_a_backup(saved, tmp_path):
    (saved / "backup.json").unlink()
    with pytest.raises(ArtifactError, match="is not a complete backup"):
        restore(saved, tracking_uri(Paths(tmp_path / "new")))


@pytest.mark.parametrize(
    ("uri", "command"),
    [
        (
            "postgresql://ann:secret@db:5433/mlflow",
            r"pg_dump --format=custom --file=mlflow.dump postgresql://ann@db:5433/mlflow",
        ),
        ("http://127.0.0.1:5000", "on the server's machine(.|\n)*pg_dump"),
    ],
)
def test_another_database_is_left_to_its_own_tools(tmp_path, uri, command):
    with pytest.raises(TrackingError, match=command) as caught:
        backup(uri, tmp_path / "saved")
    assert "nothing was done" in str(caught.value)
    assert "secret" not in str(caught.value)
