"""The SQLite file of a registry on a full disk, and while another process holds it."""

import sqlite3
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from rootstock.errors import TrackingError
from rootstock.integrations.mlflow import database as database_module
from rootstock.integrations.mlflow.client import mlflow_client
from rootstock.integrations.mlflow.registry import MlflowRegistry
from rootstock.integrations.mlflow.tracking import MlflowRunLogger

pytestmark = pytest.mark.integration


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of the given size; skip if this user may not."""
    places = []

    def mount(kilobytes):
        place = tmp_path / f"disk{kilobytes}"
        place.mkdir()
        asked = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
        if subprocess.run(asked, capture_output=True, check=False).returncode:
            pytest.skip("this user may not mount a file system")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "-l", str(place)], check=False)


@pytest.mark.parametrize("kilobytes", [40, 400])
def test_a_full_disk_leaves_no_half_made_database(small_disk, kilobytes, quiet):
    place = small_disk(kilobytes)
    start = time.monotonic()
    registry = MlflowRegistry(f"sqlite:///{place}/mlflow.db")
    with pytest.raises(TrackingError) as refused:
        registry.versions("rootstock")
    assert refused.value.hint.startswith("free some disk space")
    assert time.monotonic() - start < 60
    assert {path.name for path in place.iterdir()} <= {"mlflow.db.lock"}
    subprocess.run(["mount", "-o", "remount,size=8m", str(place)], check=True)
    assert registry.versions("rootstock") == []


def test_disk_full_during_a_run_is_not_retried(small_disk, mlflow_tables):
    place = small_disk(int(mlflow_tables.stat().st_size / 1000) + 60)
    file = place / "mlflow.db"
    file.write_bytes(mlflow_tables.read_bytes())
    logger = MlflowRunLogger(f"sqlite:///{file}", "full", patience=300.0)
    start = time.monotonic()

    def train():
        with logger.run("train") as run:
            fill(place / "ballast")
            for step in range(1_000):
                run.log_metrics({f"metric{number}": 0.5 for number in range(50)}, step=step)

    with pytest.raises(TrackingError, match="full") as refused:
        train()
    assert refused.value.hint.startswith("free some disk space")
    assert time.monotonic() - start < 60


def fill(file):
    """Fill the disk."""
    with suppress(OSError), file.open("wb", buffering=0) as open_file:
        while True:
            open_file.write(b"x" * 4096)


HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("COMMIT")
"""


def hold(file, seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("seconds", [7, pytest.param(20, marks=pytest.mark.slow)])
def test_locked_file_is_waited_for(mlflow_tables, tmp_path, seconds, quiet):
    """SQLite gives up after five seconds."""
    file = tmp_path / "mlflow.db"
    file.write_bytes(mlflow_tables.read_bytes())
    registry = MlflowRegistry(f"sqlite:///{file}")
    for call in (
        lambda: registry.versions("rootstock"),  # opens the file
        lambda: mlflow_client(registry.tracking_uri).create_registered_model("rootstock"),
        lambda: MlflowRunLogger(registry.tracking_uri, "held").run("train").__enter__(),
    ):
        holder = hold(file, seconds)
        start = time.monotonic()
        call()
        assert holder.wait() == 0
        assert time.monotonic() - start > seconds - 1


def test_permanently_locked_file_is_an_error(mlflow_tables, tmp_path, monkeypatch, quiet):
    monkeypatch.setattr(database_module, "LOCK_SECONDS", 1)
    file = tmp_path / "mlflow.db"
    file.write_bytes(mlflow_tables.read_bytes())
    holder = hold(file, 60)
    try:
        with pytest.raises(TrackingError, match="database is locked") as refused:
            MlflowRegistry(f"sqlite:///{file}").versions("rootstock")
        assert "another process has locked the file" in refused.value.hint
    finally:
        holder.kill()
        holder.wait()


def test_two_processes_that_make_database_get_same_one(tmp_path, quiet):
    uri = f"sqlite:///{tmp_path}/a%25b%3Fc%23.db"
    code = (
        "import sys; from rootstock.integrations.mlflow.client import mlflow_client; "
        "mlflow_client(sys.argv[1]).create_registered_model(sys.argv[2])"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, uri, name]) for name in ("one", "two")]
    assert [process.wait() for process in both] == [0, 0]
    assert {path.name for path in tmp_path.iterdir()} == {"a%b?c#.db", "a%b?c#.db.lock"}
    with sqlite3.connect(tmp_path / "a%b?c#.db") as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM registered_models")}
    assert names == {"one", "two"}
