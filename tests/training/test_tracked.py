"""A trial as a run: started, resumed, and returned once finished."""

import contextlib
import json

import pytest

from rootstock.errors import TrackingError
from rootstock.training.resume import resumed_run, training_run
from rootstock.training.tracked import Tracking, run_tracked


class NotedRun:
    def __init__(self, id_):
        self.id, self.params, self.metrics = id_, {}, []

    def log_params(self, params):
        self.params |= params

    def log_metrics(self, metrics, *, step=0):
        self.metrics.append((step, dict(metrics)))


class NotedRuns:
    """Records which runs were opened, and how."""

    def __init__(self, *, lost=()):
        self.opened, self.runs, self.lost = [], [], lost

    @contextlib.contextmanager
    def run(self, name, *, parent_id="", run_id="", tags=None):
        if run_id in self.lost and run_id:
            raise TrackingError("deleted")
        self.opened.append((name, parent_id, run_id, tags))
        self.runs.append(NotedRun(run_id or f"new{len(self.opened)}"))
        yield self.runs[-1]


def test_a_run_is_new_once_and_resumed_afterwards(tmp_path):
    runs, record = NotedRuns(), tmp_path / "run.json"
    for fresh in (True, False):
        options = {"parent_id": "p", "tags": {"a": "b"}}
        with resumed_run(runs, record, "trial", **options) as (run, is_new):
            assert (run.id, is_new) == ("new1", fresh)
    assert runs.opened == [("trial", "p", "", {"a": "b"}), ("trial", "", "new1", {"a": "b"})]
    assert json.loads(record.read_text()) == {"run": "new1", "parent": "p"}


@pytest.mark.parametrize(("parent", "lost"), [("other", ()), ("p", ("old",))])
def test_lost_or_foreign_run_is_started_again(tmp_path, parent, lost):
    (tmp_path / "run.json").write_text(json.dumps({"run": "old", "parent": "p"}))
    runs = NotedRuns(lost=lost)
    with resumed_run(runs, tmp_path / "run.json", "trial", parent_id=parent) as (run, is_new):
        assert (run.id, is_new) == ("new1", True)
    assert json.loads((tmp_path / "run.json").read_text())["run"] == "new1"


TRAINING = {"run_id": "theirs", "strategy": "linear_probe", "metrics": {"val_accuracy": 0.9}}


def test_pulled_model_gets_one_new_run(tmp_path):
    runs = NotedRuns(lost=("theirs",))
    for _ in range(2):
        with training_run(runs, TRAINING, tmp_path / "runs") as run:
            assert run.id == "new1"
    tags = {"rootstock.strategy": "linear_probe", "rootstock.trained_in": "theirs"}
    assert runs.opened == [
        ("linear_probe", "", "", tags),
        ("linear_probe", "", "new1", tags),
    ]
    assert runs.runs[0].metrics == [(0, {"val_accuracy": 0.9})]


def test_training_run_is_continued_under_its_name(tmp_path):
    runs = NotedRuns()
    with training_run(runs, TRAINING, tmp_path / "runs") as run:
        assert run.id == "theirs"
    assert runs.opened == [("", "", "theirs", None)]
    assert not (tmp_path / "runs").exists()


def test_an_error_in_the_body_is_the_bodys(tmp_path):
    with (
        pytest.raises(TrackingError, match="mine"),
        resumed_run(NotedRuns(), tmp_path / "run.json", "trial"),
    ):
        raise TrackingError("mine")


def a_trial(runs, folder, *, body=None):
    folder.mkdir(exist_ok=True)
    reports = []

    def usual(params, directory, report):
        report(1, {"loss": 2.0})
        report(2, {"loss": 1.0})
        return {"loss": 1.0}

    metrics = run_tracked(
        body or usual,
        {"rate": 0.1, "strengths": [1.0]},
        folder,
        lambda step, values: reports.append((step, values)),
        Tracking(runs, "parent", {"tag": "x"}),
    )
    return metrics, reports


def test_trial_logs_params_steps_and_end(tmp_path):
    runs = NotedRuns()
    metrics, reports = a_trial(runs, tmp_path)
    (run,) = runs.runs
    assert runs.opened == [("rate=0.1", "parent", "", {"tag": "x"})]
    assert run.params == {"rate": 0.1, "strengths": [1.0]}
    assert run.metrics[:2] == [(1, {"loss": 2.0}), (2, {"loss": 1.0})]
    assert run.metrics[2][1]["final_loss"] == 1.0
    assert reports == [(1, {"loss": 2.0}), (2, {"loss": 1.0})]
    assert metrics["seconds"] >= 0
    assert json.loads((tmp_path / "result.json").read_text()) == {"metrics": metrics, "run": "new1"}


def test_finished_trial_is_reported_and_not_run_again(tmp_path):
    runs = NotedRuns()
    first, _ = a_trial(runs, tmp_path)
    again, reports = a_trial(runs, tmp_path, body=None)
    assert again == first
    assert reports == [(1, first)]
    assert len(runs.opened) == 1


def test_race_trial_is_logged_with_a_run(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"metrics": {"loss": 3.0}, "run": ""}))
    runs = NotedRuns()
    for _ in range(2):
        assert a_trial(runs, tmp_path)[0] == {"loss": 3.0}
    (run,) = runs.runs
    assert (run.params["rate"], run.metrics) == (0.1, [(0, {"final_loss": 3.0})])
    assert json.loads((tmp_path / "result.json").read_text())["run"] == "new1"
