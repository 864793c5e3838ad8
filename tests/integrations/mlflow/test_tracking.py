import getpass
import json
import math
import os
import pickle
import re
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from rootstock.errors import ArtifactError, TrackingError
from rootstock.integrations.mlflow.tracking import MlflowRunLogger, origin_tags
from rootstock.ports.runs import RunData

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def logger(mlflow_uri):
    return MlflowRunLogger(mlflow_uri, "tests")


def child_run(logger, parent_id):
    with logger.run("child", parent_id=parent_id) as run:
        run.log_metrics({"loss": 1.0})
        return run.id


def test_params_are_flattened_and_cut(logger, client):
    with logger.run("params") as run:
        run.log_params({"plan": {"tap": "b3", "sizes": [1, 2]}, "long": "x" * 9_000, "a(b)": None})
        run.log_params({f"p{n}": n for n in range(150)})
    params = client.get_run(run.id).data.params
    assert (params["plan.tap"], params["plan.sizes"], params["a_b_"]) == ("b3", "[1, 2]", "None")
    assert len(params["long"]) == 500
    assert params["p149"] == "149"


def test_metrics_keep_their_steps(logger, client):
    with logger.run("metrics") as run:
        for step in range(3):
            run.log_metrics({"val/loss": 1 / (step + 1), "n": step}, step=step)
    history = client.get_metric_history(run.id, "val/loss")
    assert [(point.step, point.value) for point in history] == [(0, 1), (1, 0.5), (2, 1 / 3)]


def test_metrics_without_value_become_tags(logger, client):
    with logger.run("nan") as run:
        run.log_metrics({"loss": math.nan, "gap": -math.inf, "acc": 0.5}, step=4)
    data = client.get_run(run.id).data
    assert data.metrics == {"acc": 0.5}
    assert data.tags["nonfinite.loss"] == "nan at step 4"
    assert data.tags["nonfinite.gap"] == "-inf at step 4"


def test_run_carries_user_source_commit_data_and_description(logger, client, monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    origin_tags.cache_clear()
    with logger.run("origin") as run:
        run.describe("Classifies an image as one of 3 classes.")
        run.log_data(RunData("flowers", "ab" * 32, "data/flowers", {"training": 7, "test": 2}))
    found = client.get_run(run.id)
    assert found.data.tags["mlflow.user"] == getpass.getuser()
    assert found.data.tags["mlflow.source.name"]
    assert re.fullmatch("[0-9a-f]{40}", found.data.tags["mlflow.source.git.commit"])
    assert found.data.tags["mlflow.note.content"].startswith("Classifies")
    [entry] = found.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("flowers", "ab" * 18)
    assert json.loads(entry.dataset.profile) == {"training": 7, "test": 2}


def test_experiment_opens_with_its_runs(logger, client):
    with logger.run("kind"):
        pass
    found = client.get_experiment_by_name("tests")
    assert found.tags["mlflow.experimentKind"] == "custom_model_development"
    client.delete_experiment_tag(found.experiment_id, "mlflow.experimentKind")
    with logger.run("older experiment"):
        pass
    found = client.get_experiment_by_name("tests")
    assert found.tags["mlflow.experimentKind"] == "custom_model_development"


def test_run_ends_finished_with_its_tags(logger, client):
    with logger.run("tags", tags={"stage": "train"}) as run:
        run.set_tags({"long": "x" * 9_000})
    found = client.get_run(run.id)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "tags")
    assert found.data.tags["stage"] == "train"


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_error_in_body_marks_run_and_passes_on(logger, client, error, status):
    with pytest.raises(error), logger.run("broken") as run:
        raise error
    assert client.get_run(run.id).info.status == status
    assert client.get_run(run.id).info.end_time


@pytest.mark.parametrize(("given", "name"), [("", "first"), ("second try", "second try")])
def test_ended_run_is_continued(logger, client, given, name):
    with logger.run("first") as run:
        run.log_metrics({"a": 1.0})
    with logger.run(given, run_id=run.id) as again:
        assert client.get_run(run.id).info.status == "RUNNING"
        again.log_metrics({"b": 2.0})
    found = client.get_run(run.id)
    assert found.data.metrics == {"a": 1.0, "b": 2.0}
    assert (found.info.status, found.info.run_name) == ("FINISHED", name)


def test_unknown_run_cannot_be_continued(logger):
    with (
        pytest.raises(TrackingError, match=f"run {'0' * 32} in MLflow at sqlite:.*not found"),
        logger.run("later", run_id="0" * 32),
    ):
        pass


def test_files_are_next_to_database_not_in_cwd(logger, client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "report"
    source.mkdir()
    (source / "plan.md").write_text("# plan")
    with logger.run("files") as run:
        run.log_files(source, folder="reports")
        run.log_files(source / "plan.md")
    database = Path(logger.tracking_uri.removeprefix("sqlite:///"))
    home = database.parent / "mlruns" / run.id / "artifacts"
    assert (home / "reports/plan.md").read_text() == (home / "plan.md").read_text() == "# plan"
    assert list(tmp_path.iterdir()) == [source]


def test_missing_file_is_named(logger, tmp_path):
    with (
        pytest.raises(ArtifactError, match=r"there is no .*nothing.txt to log"),
        logger.run("files") as run,
    ):
        run.log_files(tmp_path / "nothing.txt")


def test_global_state_of_mlflow_does_not_change(logger):
    import mlflow

    with logger.run("explicit"):
        assert mlflow.active_run() is None
        assert mlflow.get_tracking_uri() != logger.tracking_uri


def test_deleted_experiment_says_how_to_restore(mlflow_uri, client):
    number = client.create_experiment("gone")
    client.delete_experiment(number)
    with (
        pytest.raises(TrackingError, match=rf"'gone' was deleted\n.*restore -x {number}"),
        MlflowRunLogger(mlflow_uri, "gone").run("run"),
    ):
        pass


def test_processes_may_use_a_fresh_database_at_once(tmp_path):
    logger = MlflowRunLogger(f"sqlite:///{tmp_path}/new/mlflow.db", "tests")
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        runs = list(pool.map(child_run, [pickle.loads(pickle.dumps(logger))] * 3, ["p"] * 3))
    from mlflow import MlflowClient

    tags = [MlflowClient(logger.tracking_uri).get_run(run).data.tags for run in runs]
    assert [tag["mlflow.parentRunId"] for tag in tags] == ["p"] * 3


def test_dead_server_costs_seconds_and_hides_password():
    began = time.monotonic()
    with (
        pytest.raises(TrackingError, match=r"at http://\*\*\*@127.0.0.1:1: ") as caught,
        MlflowRunLogger("http://user:secret@127.0.0.1:1", "tests").run("run"),
    ):
        pass
    assert time.monotonic() - began < 10
    assert "secret" not in str(caught.value)
    assert "tracking.enabled=false" in caught.value.hint


def test_server_that_dies_does_not_hide_bodys_error(logger):
    def work():
        with logger.run("run") as run:
            object.__setattr__(run, "tracking_uri", "http://127.0.0.1:1")
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        work()
    assert "could not be marked as FAILED" in caught.value.__notes__[0]


@pytest.mark.parametrize("uri", ["sqlite:////proc/none/mlflow.db", "sqlite:///{}/text.db"])
def test_unusable_database_fails_at_once(tmp_path, uri):
    (tmp_path / "text.db").write_text("this is no database at all" * 100)
    began = time.monotonic()
    with (
        pytest.raises(TrackingError, match=r"mlflow.db|not a database"),
        MlflowRunLogger(uri.format(tmp_path), "tests").run("run"),
    ):
        pass
    assert time.monotonic() - began < 5


def test_file_store_is_rejected_with_a_way_out(tmp_path):
    with (
        pytest.raises(TrackingError, match=r"sqlite:////absolute/mlflow.db"),
        MlflowRunLogger(f"file://{tmp_path}/runs", "tests").run("run"),
    ):
        pass


def test_telemetry_is_off(mlflow_uri):
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["DO_NOT_TRACK"] in ("1", "true")
