"""Corrections through the studio: written at once, undone by a later row, never lost."""

import json
import os
import shutil
import signal
import subprocess
import sys

import httpx
import pytest

from rootstock.data.label_corrections import ORIGINAL, REMOVE, read_corrections
from rootstock.studio.guard import TOKEN_HEADER
from tests.service.requests import check_problem, wait_for
from tests.studio.conftest import SCRIPT, open_studio

pytestmark = pytest.mark.integration


@pytest.fixture
def client(project):
    return open_studio(project)


def rows_of(project):
    return read_corrections(project / "images/corrections.csv")


def first_image(client, **filters):
    return client.get("/api/images", params=filters).json()["images"][0]


def correct(client, image, **given):
    given = {"seen": image["text"], "who": "Ada"} | given
    return client.post(f"/api/images/{image['id']}/label", json=given)


def test_a_label_is_written_with_name_and_time(client, project):
    image = first_image(client, term="plain")
    answer = correct(client, image, parts={"labels": [SCRIPT]}, why="it has legs")
    assert answer.json()["label"] == SCRIPT
    (row,) = rows_of(project)
    assert (row.sha256, row.old, row.new) == (image["id"], "plain", SCRIPT)
    assert (row.who, row.why) == ("Ada", "it has legs")
    assert row.when.endswith("+00:00")


def test_the_grid_shows_the_label_in_force(client):
    image = first_image(client, term="plain")
    correct(client, image, parts={"labels": [SCRIPT]})
    (shown,) = client.get("/api/images", params={"flag": "corrected"}).json()["images"][:1]
    assert shown["label"] == SCRIPT
    assert shown["correction"]["old_label"] == "plain"


def test_undo_is_a_later_row(client, project):
    image = first_image(client, term="plain")
    correct(client, image, parts={"labels": [SCRIPT]})
    correct(client, image, text="plain", seen=SCRIPT, why="undone")
    assert [row.new for row in rows_of(project)] == [SCRIPT, "plain"]
    assert client.get(f"/api/images/{image['id']}/label").json()["label"] == "plain"


def test_an_image_can_be_taken_out(client, project):
    image = first_image(client, term="plain")
    assert correct(client, image, remove=True).json()["label"] == "removed"
    assert rows_of(project)[0].new == REMOVE


def test_removed_image_gets_its_label_back(client, project):
    image = first_image(client, term="plain")
    correct(client, image, remove=True, seen=None)
    answer = correct(client, image, original=True, seen=None)
    assert answer.json()["label"] == "plain"
    assert [(row.old, row.new) for row in rows_of(project)] == [
        ("plain", REMOVE),
        (REMOVE, ORIGINAL),
    ]


def test_image_whose_label_was_undone_is_in_the_queue_again(client):
    (image, *_) = client.get("/api/queue").json()["images"]
    correct(client, image, parts={"labels": [SCRIPT]})
    correct(client, image, original=True, seen=SCRIPT)
    queue = client.get("/api/queue").json()["images"]
    assert image["id"] in [one["id"] for one in queue]
    assert client.get("/api/corrections").json()["total"] == 0
    assert "correction" not in client.get(f"/api/images/{image['id']}/label").json()


def test_labels_of_two_people_are_kept_and_shown(client, project):
    image = first_image(client, term="plain")
    correct(client, image, parts={"labels": [SCRIPT]})
    answer = correct(client, image, parts={"labels": ["third"]}, who="Grace").json()
    assert [one["who"] for one in answer["conflict"]] == ["Ada", "Grace"]
    assert len(rows_of(project)) == 2
    (listed,) = client.get("/api/corrections").json()["conflicts"]
    assert listed["id"] == image["id"]
    assert client.get("/api/images", params={"flag": "disputed"}).json()["total"] > 0
    # A person who saw the current label settles the conflict.
    settled = correct(client, image, parts={"labels": ["plain"]}, seen="third").json()
    assert "conflict" not in settled


@pytest.mark.parametrize(
    "given", [{"parts": {"labels": []}}, {"parts": {"labels": ["a", "b"]}}, {"parts": {"box": 1}}]
)
def test_invalid_label_is_rejected_and_not_written(client, project, given):
    answer = correct(client, first_image(client, term="plain"), **given)
    assert answer.status_code == 409
    assert rows_of(project) == ()


def test_a_label_needs_a_name_and_a_label(client):
    image = first_image(client, term="plain")
    check_problem(correct(client, image, remove=True, who=" "), 422, "invalid-request")
    check_problem(correct(client, image), 422, "invalid-request")


def test_without_the_token_nothing_is_written(client, project):
    image = first_image(client, term="plain")
    client.headers[TOKEN_HEADER] = ""
    check_problem(correct(client, image, remove=True), 403, "forbidden")
    assert rows_of(project) == ()


def test_a_file_that_cannot_be_written_is_explained(client, project):
    (project / "images/corrections.csv").mkdir()
    image = client.app.state.studio.project.manifest.get().rows()[0]
    answer = client.post(
        f"/api/images/{image.sha256}/label", json={"seen": "", "who": "Ada", "remove": True}
    )
    assert answer.status_code == 409
    assert "corrections.csv" in answer.json()["detail"]


def test_the_queue_ends_with_what_was_decided(client):
    queue = client.get("/api/queue").json()
    assert queue["by"] == "all"
    assert queue["total"] > 0
    assert queue["images"][0]["reasons"]
    image = queue["images"][0]
    correct(client, image, text=image["text"], seen=image["text"])
    after = client.get("/api/queue").json()
    assert image["id"] not in [one["id"] for one in after["images"]]


def test_a_queue_can_be_any_filter(client):
    queue = client.get("/api/queue", params={"fact": "camera=right", "term": "plain"}).json()
    assert queue["by"] == "filters"
    assert queue["total"] == len(queue["images"]) == 8


def test_the_model_says_what_it_sees_and_where(client):
    image = first_image(client, term="plain")
    said = client.get(f"/api/images/{image['id']}/opinion").json()
    assert {one["label"] for one in said["answer"]["top"]} == {SCRIPT, "plain"}
    assert said["neighbours"][0]["id"]
    picture = client.get(f"/api/images/{image['id']}/heat-map")
    assert picture.content.startswith(b"\x89PNG")


def test_labelling_works_without_a_model(project):
    shutil.rmtree(project / "artifacts/model")
    client = open_studio(project)
    image = first_image(client, term="plain")
    answer = client.get(f"/api/images/{image['id']}/opinion")
    assert "no model in" in check_problem(answer, 409, "conflict")
    assert correct(client, image, parts={"labels": [SCRIPT]}).status_code == 200


def test_killed_studio_loses_no_label_that_it_confirmed(project):
    command = [sys.executable, "-m", "rootstock", "studio", str(project), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        address = next(line for line in process.stderr if line.startswith("studio of")).split()[-1]
        with httpx.Client(base_url=address) as client:
            token = wait_for(lambda: client.get("/api/session").json()["token"])
            image = first_image(client, term="plain")
            client.headers[TOKEN_HEADER] = token
            assert correct(client, image, parts={"labels": [SCRIPT]}).status_code == 200
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (row,) = rows_of(project)
    assert row.new == SCRIPT
    again = open_studio(project).get(f"/api/images/{image['id']}/label").json()
    assert again["label"] == SCRIPT
    assert json.dumps(again["parts"])
