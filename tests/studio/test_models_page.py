"""The routes of the Models page: the plan, the evaluation, the registry, and a running pipeline."""

import fcntl
import os
import time

import pytest

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.integrations.connect import connect_registry, connect_runs
from rootstock.service.http.keys import make_key
from rootstock.studio.guard import TOKEN_HEADER
from rootstock.studio.pipeline import PipelineWatch, find_holder
from rootstock.workflow.register import register_model
from tests.service.requests import check_problem
from tests.studio.conftest import open_studio

pytestmark = pytest.mark.integration


@pytest.fixture
def registered(project):
    """A project whose registry has one version, the champion."""
    register(project)
    return project


def register(project):
    config, paths = load_config(project / "params.yaml"), Paths(project)
    runs, registry = connect_runs(config, paths), connect_registry(config, paths)
    return register_model(config, paths, runs=runs, registry=registry)


def test_the_plan_has_a_reason_for_each_choice(client):
    plan = client.get("/api/plan").json()
    assert plan["strategy"] == "linear_probe"
    assert {"size", "similarity", "strategy"} <= {one["choice"] for one in plan["reasons"]}
    assert plan["forecast"]["test_accuracy"] >= 0


def test_confusions_add_up_and_lead_to_their_images(client):
    found = client.get("/api/evaluation").json()
    n_test = found["metrics"]["n_test"]
    assert sum(one["count"] for one in found["confusions"]) == n_test == len(found["certainty"])
    right = sum(a == b for a, b in zip(found["targets"], found["said"], strict=True))
    assert right / n_test == pytest.approx(found["metrics"]["accuracy"], abs=1e-6)
    for one in found["confusions"]:
        cell = {"target": one["target"], "said": one["said"]}
        assert client.get("/api/images", params=cell).json()["total"] == one["count"]
    wrong = client.get("/api/images", params={"flag": "wrong"}).json()["total"]
    assert wrong == n_test - right


def test_slices_by_metadata_are_looked_at(client):
    assert set(client.get("/api/slices").json()) == {"looked_at", "worse"}


def test_evaluation_of_other_images_says_what_to_run(project):
    (project / "artifacts/decisions.parquet").unlink()
    answer = open_studio(project).get("/api/evaluation")
    check_problem(answer, 409, "conflict")
    assert answer.json()["todo"] == "run the stage `evaluate` again"


def test_without_a_registry_the_page_says_so(client):
    detail = check_problem(client.get("/api/models"), 409, "conflict")
    assert "there is no registry" in detail


def test_the_champion_has_metrics_card_and_history(registered):
    found = open_studio(registered).get("/api/models").json()
    champion = found["compared"]["champion"]
    assert champion["version"] == "1"
    assert champion["metrics"]["n_test"] > 0
    assert "# " in champion["card"]
    assert [one["kind"] for one in found["changes"]] == ["gate"]
    assert found["compared"]["challenger"] is None


def test_a_version_is_promoted_and_rolled_back(registered):
    (registered / "artifacts/model/bundle.json").touch()
    config, paths = load_config(registered / "params.yaml"), Paths(registered)
    registry = connect_registry(config, paths)
    champion = registry.find("rootstock", alias="champion")
    bundle = registry.download(champion, registered / "copy")
    registry.register("rootstock", bundle, run_id=champion.run_id, tags={}, description="again")
    client = open_studio(registered)
    wrong = client.post("/api/champion/promote", json={"version": "2", "expect": "2", "why": ""})
    assert "not version 2" in check_problem(wrong, 409, "conflict")
    given = {"version": "2", "expect": "1", "why": "newer", "who": "Ada"}
    assert client.post("/api/champion/promote", json=given).json() == {"version": "2"}
    back = client.post("/api/champion/rollback", json={"why": "worse", "who": "Ada"})
    assert back.json() == {"version": "1"}
    changes = client.get("/api/models").json()["changes"]
    assert [(one["kind"], one["by"]) for one in changes[:2]] == [
        ("rollback", "Ada"),
        ("promotion", "Ada"),
    ]


def test_promoting_needs_an_admin_key(finished, tmp_path):
    file = tmp_path / "keys"
    key = make_key("Grace", "predict", file)
    client = open_studio(finished, keys=file)
    client.headers[TOKEN_HEADER] = client.post("/api/session", json={"key": key}).json()["token"]
    answer = client.post("/api/champion/rollback", json={"why": ""})
    assert "needs an admin key" in check_problem(answer, 403, "forbidden")


def test_run_at_work_is_seen_and_not_disturbed(project):
    lock = project / ".rootstock/lock"
    watch = PipelineWatch(Paths(project))
    assert not watch.describe()["running"]
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if find_holder(lock) is None:
            pytest.skip("this system does not list locks in /proc/locks")
        assert find_holder(lock) == os.getpid()
        os.utime(project / "artifacts/manifest.parquet", (time.time() + 5,) * 2)
        found = watch.describe()
        assert found["running"]
        assert found["stages"][0] == {
            "name": "index",
            "at": pytest.approx(time.time() + 5, abs=5),
            "fresh": True,
        }
    assert not watch.describe()["running"]


def test_pipeline_starts_once_and_shows_output(project):
    studio = open_studio(project)
    before = studio.get("/api/run").json()
    assert (before["running"], before["code"]) == (False, None)
    assert before["advice"]["pays"] is False
    assert before["command"].startswith("rootstock train")
    assert studio.post("/api/run/start").json()["running"]
    check_problem(studio.post("/api/run/start"), 409, "conflict")
    until = time.monotonic() + 120
    while (found := studio.get("/api/run").json())["running"]:
        assert time.monotonic() < until
        time.sleep(0.5)
    assert found["code"] == 0, found["log"]
    assert "index: " in found["log"]


def test_a_run_is_stopped_as_by_ctrl_c(project):
    studio = open_studio(project)
    (project / "artifacts/manifest.parquet").unlink()
    assert studio.post("/api/run/start").json()["running"]
    studio.post("/api/run/stop")
    until = time.monotonic() + 60
    while (found := studio.get("/api/run").json())["running"]:
        assert time.monotonic() < until
        time.sleep(0.2)
    assert found["code"] != 0


def test_only_an_admin_starts_the_pipeline(project, tmp_path):
    key = make_key("Ada", "predict", tmp_path / "keys")
    studio = open_studio(project, keys=tmp_path / "keys")
    studio.headers[TOKEN_HEADER] = studio.post("/api/session", json={"key": key}).json()["token"]
    check_problem(studio.post("/api/run/start"), 403, "forbidden")
