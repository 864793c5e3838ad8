"""The routes of the Data page on a real project."""

import io
import shutil

import pytest
from PIL import Image

from tests.service.requests import check_problem
from tests.studio.conftest import IMAGES_PER_CLASS, SCRIPT, open_studio

pytestmark = pytest.mark.integration


def ask(client, **filters):
    answer = client.get("/api/images", params=filters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_all_images_are_listed_also_those_left_out(client):
    page = ask(client, limit=500)
    assert page["total"] == len(page["images"]) == 2 * IMAGES_PER_CLASS + 2
    broken = next(one for one in page["images"] if one["path"] == "broken.png")
    assert broken["reason"] == "not-an-image"


def test_a_page_begins_where_it_is_asked_to(client):
    everything = ask(client, limit=500)["images"]
    assert ask(client, offset=7, limit=3)["images"] == everything[7:10]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"term": SCRIPT}, IMAGES_PER_CLASS),
        ({"term": [SCRIPT, "plain"]}, 2 * IMAGES_PER_CLASS + 1),
        ({"term": "nothing"}, 0),
        ({"reason": "any"}, 1),
        ({"reason": "not-an-image"}, 1),
        ({"reason": "none"}, 2 * IMAGES_PER_CLASS + 1),
        ({"flag": "copies"}, 2),
        ({"flag": ["copies", "conflict"]}, 0),
        ({"fact": "camera=right"}, IMAGES_PER_CLASS // 3 * 2),
        ({"fact": "camera=right", "term": "plain"}, IMAGES_PER_CLASS // 3),
        ({"fact": "nothing=right"}, 0),
        ({"text": "COPY"}, 1),
        ({"min_side": 49}, 0),
        ({"max_side": 48, "reason": "none"}, 2 * IMAGES_PER_CLASS + 1),
    ],
)
def test_filters_let_the_right_images_through(client, filters, expected):
    assert ask(client, **filters)["total"] == expected


def test_copies_are_found_by_their_picture(client):
    copy = ask(client, text="copy")["images"][0]
    assert ask(client, picture=copy["picture"])["total"] == 2


def test_counts_add_up_to_the_images_shown(client):
    found = client.get("/api/facets", params={"reason": "none"}).json()
    total = 2 * IMAGES_PER_CLASS + 1
    assert found["total"] == total
    assert sum(found["facets"]["splits"].values()) == total
    assert found["facets"]["terms"] == {"plain": IMAGES_PER_CLASS + 1, SCRIPT: IMAGES_PER_CLASS}
    assert set(found["facets"]["fact:camera"]) == {"left", "right"}


def test_findings_say_which_images_they_are_about(client):
    findings = client.get("/api/findings").json()["findings"]
    about = {one["about"] for one in findings}
    assert {"copies", "quarantine", "scarce"} <= about
    for flag in about - {"", "quarantine", "smallest", "largest"}:
        assert ask(client, flag=flag)["total"] > 0


def test_doubtful_labels_come_first_if_asked_for(client):
    doubts = ask(client, order="doubt")["images"]
    confidences = [one.get("doubt", {}).get("confidence", 0.0) for one in doubts]
    assert confidences == sorted(confidences, reverse=True)


def test_a_thumbnail_is_made_once_and_kept(project):
    client = open_studio(project)
    image = ask(client, text="copy")["images"][0]
    answer = client.get(f"/api/images/{image['id']}/thumbnail")
    assert answer.headers["content-type"] == "image/webp"
    assert "immutable" in answer.headers["Cache-Control"]
    assert Image.open(io.BytesIO(answer.content)).size == (48, 48)
    shutil.rmtree(project / "images")
    again = client.get(f"/api/images/{image['id']}/thumbnail")
    assert again.content == answer.content


def test_a_half_written_thumbnail_is_made_again(project):
    client = open_studio(project)
    image = ask(client, text="copy")["images"][0]
    whole = client.get(f"/api/images/{image['id']}/thumbnail").content
    (file,) = (project / ".rootstock/thumbnails").rglob(f"{image['id']}.webp")
    file.write_bytes(b"")
    assert client.get(f"/api/images/{image['id']}/thumbnail").content == whole


def test_an_image_that_vanished_is_explained(project):
    client = open_studio(project)
    image = ask(client, term=SCRIPT)["images"][0]
    (project / "images" / image["path"]).unlink()
    answer = client.get(f"/api/images/{image['id']}/picture")
    assert "since it was indexed" in check_problem(answer, 409, "conflict")
    assert answer.json()["todo"] == "run the stage `index` again"


def test_folder_that_cannot_be_written_costs_time_only(project):
    shutil.rmtree(project / ".rootstock/thumbnails", ignore_errors=True)
    (project / ".rootstock/thumbnails").write_bytes(b"")
    client = open_studio(project)
    image = ask(client, term="plain")["images"][0]
    assert client.get(f"/api/images/{image['id']}/thumbnail").status_code == 200
    notes = client.get("/api/session").json()["project"]["notes"]
    assert "Thumbnails are not stored" in notes[0]["text"]


@pytest.mark.parametrize(
    ("missing", "stage"), [("manifest.parquet", "index"), ("review.json", "assess")]
)
def test_missing_artifact_is_named_with_what_makes_it(project, missing, stage):
    (project / "artifacts" / missing).unlink()
    session = open_studio(project).get("/api/session").json()
    (note,) = session["project"]["notes"]
    assert note["stage"] == stage
    assert f"{missing} is missing" in note["text"]
    assert f"run the stage `{stage}` again" in note["todo"]


def test_damaged_manifest_is_explained_and_reread(project):
    client, file = open_studio(project), project / "artifacts/manifest.parquet"
    whole = file.read_bytes()
    assert ask(client)["total"]
    file.write_bytes(whole[:100])
    detail = check_problem(client.get("/api/images"), 409, "conflict")
    assert "is not a manifest" in detail
    file.write_bytes(whole)
    assert ask(client)["total"]


def test_the_map_holds_every_usable_image(client):
    facts = client.get("/api/map").json()
    assert facts["total"] == 2 * IMAGES_PER_CLASS + 1
    assert set(facts["names"]) == {SCRIPT, "plain"}
    packed = client.get("/api/map/points").content
    assert len(packed) == 6 * facts["total"]
    image = client.get("/api/map/image", params={"number": 0}).json()
    assert image["path"]
    check_problem(client.get("/api/map/image", params={"number": 9999}), 404, "not-found")


def test_lasso_around_map_holds_all_of_it(client):
    whole = ask(client, lasso="-0.1,-0.1,1.1,-0.1,1.1,1.1,-0.1,1.1")
    assert whole["total"] == 2 * IMAGES_PER_CLASS + 1
    left = ask(client, lasso="-0.1,-0.1,0.5,-0.1,0.5,1.1,-0.1,1.1")["total"]
    right = ask(client, lasso="0.5,-0.1,1.1,-0.1,1.1,1.1,0.5,1.1")["total"]
    assert left + right == whole["total"]
    assert min(left, right) > 0


@pytest.mark.parametrize("lasso", ["1,2", "a,b,c", "1,2,3", "0,0,1,1,nan,0", "0,0," * 500 + "0,0"])
def test_a_lasso_that_is_none_is_rejected(client, lasso):
    answer = client.get("/api/images", params={"lasso": lasso})
    check_problem(answer, 422, "invalid-request")


def test_without_features_the_map_says_what_to_run(project):
    (project / "artifacts/features.json").unlink()
    answer = open_studio(project).get("/api/map")
    assert answer.json()["todo"] == "run the stage `features` again"
