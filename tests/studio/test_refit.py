"""From a corrected label to a new champion, without a pipeline run."""

import fcntl
import json

import pytest

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.integrations.connect import connect_registry, connect_runs
from rootstock.workflow.register import register_model
from tests.service.requests import wait_for
from tests.studio.conftest import SCRIPT, open_studio

pytestmark = pytest.mark.integration


def finish(client):
    return wait_for(
        lambda: (found := client.get("/api/refit").json()) and not found["work"] and found, 60
    )


def correct_some(client, count):
    page = client.get("/api/images", params={"term": "plain", "split": "train"}).json()
    for image in page["images"][:count]:
        given = {"seen": "plain", "who": "Ada", "parts": {"labels": [SCRIPT]}}
        assert client.post(f"/api/images/{image['id']}/label", json=given).status_code == 200


def test_corrected_labels_become_head_next_to_its_model(project):
    client = open_studio(project)
    before = (project / "artifacts/manifest.parquet").read_bytes()
    correct_some(client, 2)
    assert client.post("/api/refit").json()["work"] == "refit"
    found = finish(client)
    assert found["problem"] is None
    assert found["corrected"] == 2
    assert found["waiting"] == 2
    assert found["comparison"]["champion"] is not None
    assert found["metrics"]["n_test"] > 0
    assert (project / "artifacts/manifest.parquet").read_bytes() == before


def test_new_head_meets_champion_at_gate(project):
    config, paths = load_config(project / "params.yaml"), Paths(project)
    runs, registry = connect_runs(config, paths), connect_registry(config, paths)
    register_model(config, paths, runs=runs, registry=registry)
    client = open_studio(project)
    correct_some(client, 2)
    client.post("/api/refit")
    finish(client)
    client.post("/api/champion/refit")
    found = finish(client)
    assert found["problem"] is None
    assert found["outcome"]["version"] == "2"
    versions = client.get("/api/models").json()["versions"]
    assert [one["version"] for one in versions] == ["2", "1"]


def test_without_model_page_says_what_to_do(project):
    (project / "artifacts/model/bundle.json").unlink()
    client = open_studio(project)
    client.post("/api/refit")
    assert finish(client)["problem"]["text"]


def test_a_run_at_work_is_not_disturbed(project):
    client = open_studio(project)
    with (project / ".rootstock/lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        client.post("/api/refit")
        assert "another run is writing" in finish(client)["problem"]["text"]


def test_there_is_nothing_to_register_before_a_fit(project):
    client = open_studio(project)
    client.post("/api/champion/refit")
    found = finish(client)
    assert found["problem"]["text"] == "no new head yet"
    assert json.dumps(found)
