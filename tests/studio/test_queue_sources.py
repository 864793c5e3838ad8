"""Images from outside the data: a folder without labels and the journal of a service."""

import shutil
import threading

import pytest

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.data.label_corrections import REMOVE, read_corrections
from rootstock.data.manifest import Manifest
from rootstock.errors import ConfigError
from rootstock.service.http.keys import make_key
from rootstock.studio.guard import TOKEN_HEADER
from rootstock.workflow.index import index_images
from tests.bundles import jpeg
from tests.cli.test_cli import run
from tests.data.folders import photo
from tests.service.conftest import make_client
from tests.service.requests import check_problem, post_files, wait_for
from tests.studio.conftest import SCRIPT, open_studio

pytestmark = pytest.mark.integration


@pytest.fixture
def pool(tmp_path, project):
    """A folder with new images, one that the data has, a second copy, and a broken file."""
    folder = tmp_path / "pool"
    (folder / "deep").mkdir(parents=True)
    for number in range(6):
        name = f"deep/{number}-{SCRIPT.replace('/', '')}.png" if number % 2 else f"{number}.png"
        (folder / name).write_bytes(photo(5000 + number))
    shutil.copy(folder / "0.png", folder / "again.png")
    known = Manifest.read(project / "artifacts/manifest.parquet").rows("train")[0]
    shutil.copy(project / "images" / known.path, folder / "known.png")
    (folder / "broken.png").write_bytes(b"broken")
    return folder


def wait_until_ranked(client):
    def is_ranked():
        found = client.get("/api/pool").json()
        assert not found["problem"], found
        return not found["working"] and found["images"] and found

    return wait_for(is_ranked)


@pytest.fixture
def client(project, pool):
    client = open_studio(project, pool=pool)
    wait_until_ranked(client)
    return client


def queue_of(client, source):
    found = client.get("/api/queue", params={"source": source}).json()
    assert found["by"] == source
    return found["images"]


def give(client, image, **given):
    given = {"seen": image["text"], "who": "Ada"} | given
    return client.post(f"/api/images/{image['id']}/label", json=given)


def corrections(project):
    return read_corrections(project / "images/corrections.csv")


def index(project):
    table = project / "images/labels.csv"
    config = load_config(project / "params.yaml", overrides=[f"data.root={table}"])
    return index_images(config, Paths(project))


def test_the_pool_is_ranked_as_the_command_does(client, pool, project, capsys):
    images = queue_of(client, "pool")
    assert {image["text"] for image in images} == {""}
    assert images[0]["reasons"] == ["not labelled"]
    model = project / "artifacts/model"
    listed = run(capsys, "suggest", pool, "--model", model).splitlines()[:-1]
    assert [line.split("  ")[-1].partition(": ")[0] for line in listed] == [
        image["path"] for image in images
    ]
    assert len(images) == 6
    assert client.get("/api/pool").json()["unusable"] == 1


def test_image_of_pool_has_picture_and_opinion(client):
    for image in queue_of(client, "pool"):
        address = f"/api/images/{image['id']}"
        assert client.get(f"{address}/picture").headers["content-type"] == "image/webp"
        assert client.get(f"{address}/opinion").json()["size"] == [48, 48]
        assert client.get(f"{address}/heat-map").content.startswith(b"\x89PNG")
        assert client.get(f"{address}/label").json()["parts"] is None


def test_a_label_copies_the_image_into_the_data(client, pool, project):
    before = {path: path.read_bytes() for path in pool.rglob("*.png")}
    image = queue_of(client, "pool")[0]
    answer = give(client, image, parts={"labels": ["plain"]})
    assert answer.json()["label"] == "plain"
    assert {path: path.read_bytes() for path in pool.rglob("*.png")} == before
    (row,) = corrections(project)
    assert (row.sha256, row.old, row.new, row.who) == (image["id"], "", "plain", "Ada")
    assert row.why == f"from {pool / image['path']}"
    assert image["id"] not in [one["id"] for one in queue_of(client, "pool")]
    assert client.get("/api/run").json()["advice"]["changed"] == 1
    manifest = index(project)
    (added,) = [one for one in manifest.rows() if one.path.startswith("added/")]
    assert (added.sha256, added.target) == (image["id"], "plain")
    assert client.get("/api/run").json()["advice"]["changed"] == 0


def test_label_of_added_image_is_taken_back_by_row(client, project):
    image = queue_of(client, "pool")[0]
    give(client, image, parts={"labels": ["plain"]})
    give(client, image, remove=True, seen="plain", why="undone")
    assert [row.new for row in corrections(project)] == ["plain", REMOVE]
    assert "added" not in {row.path.partition("/")[0] for row in index(project).rows()}
    assert give(client, image, parts={"labels": [SCRIPT]}, seen=REMOVE).json()["label"] == SCRIPT
    assert SCRIPT in {row.target for row in index(project).rows() if "added/" in row.path}


def test_two_people_who_label_one_image_are_both_kept(client, project):
    image = queue_of(client, "pool")[0]
    answers = []
    people = [
        threading.Thread(
            target=lambda who=who, label=label: answers.append(
                give(client, image, who=who, parts={"labels": [label]}).json()
            )
        )
        for who, label in (("Ada", "plain"), ("Grace", SCRIPT))
    ]
    for one in people:
        one.start()
    for one in people:
        one.join()
    assert {row.new for row in corrections(project)} == {"plain", SCRIPT}
    assert ["conflict" in answer for answer in answers].count(True) == 1


def test_image_that_is_not_in_data_cannot_be_removed(client, project):
    answer = give(client, queue_of(client, "pool")[0], remove=True)
    assert "not in the data" in check_problem(answer, 409, "conflict")
    assert corrections(project) == ()


def test_file_of_pool_that_changed_is_rejected(client, pool, project):
    image = queue_of(client, "pool")[0]
    (pool / image["path"]).write_bytes(photo(77))
    answer = give(client, image, parts={"labels": ["plain"]})
    assert answer.status_code == 409
    assert corrections(project) == ()
    assert not (project / "images/added").exists()


def test_rest_is_ranked_again_without_what_has_label(client):
    first = queue_of(client, "pool")[0]
    give(client, first, parts={"labels": ["plain"]})
    assert client.post("/api/pool/rank").status_code == 200
    wait_until_ranked(client)
    assert len(queue_of(client, "pool")) == 5


def test_folder_is_named_on_page_by_admin(project, pool, tmp_path):
    client = open_studio(project)
    check_problem(
        client.post("/api/pool/choose", json={"folder": "nowhere"}), 422, "invalid-request"
    )
    assert client.post("/api/pool/choose", json={"folder": str(pool)}).status_code == 200
    assert wait_until_ranked(client)["folder"] == str(pool)
    file = tmp_path / "keys"
    key = make_key("Grace", "predict", file)
    other = open_studio(project, keys=file)
    session = other.post("/api/session", json={"key": key}).json()
    other.headers[TOKEN_HEADER] = session["token"]
    answer = other.post("/api/pool/choose", json={"folder": str(pool)})
    check_problem(answer, 403, "forbidden")


def test_pool_that_is_not_there_is_rejected_at_start(project, tmp_path):
    with pytest.raises(ConfigError, match="there is no folder"):
        open_studio(project, pool=tmp_path / "nowhere")


def test_without_model_pool_says_what_to_do(project, pool):
    shutil.rmtree(project / "artifacts/model")
    client = open_studio(project, pool=pool)
    found = wait_for(lambda: client.get("/api/pool").json()["problem"])
    assert "no model in" in found["text"]


@pytest.fixture
def served(project, tmp_path):
    """The studio with the journal of a service that was unsure of an image and wrong about one."""
    journal = tmp_path / "journal"
    contents = [jpeg(number) for number in range(3)]
    model = project / "artifacts/model"
    with make_client(model=str(model), journal=journal, journal_images=True) as service:
        ids = [
            post_files(service, ("a.jpg", content)).headers["X-Request-ID"] for content in contents
        ]

        def judge():
            said = {"request_id": ids[0], "label": "third"}
            return service.post("/v1/feedback", json=said).status_code < 300

        wait_for(judge)
    return open_studio(project, journal=journal)


def test_wrong_answer_comes_first_with_feedback_as_label(served, project):
    images = wait_for(lambda: queue_of(served, "requests"))
    first = images[0]
    assert (first["reasons"], first["suggested"]) == (["answered wrongly"], "third")
    assert first["origin"]
    assert give(served, first, text="third").json()["label"] == "third"
    (row,) = corrections(project)
    assert (row.sha256, row.new) == (first["id"], "third")
    assert "journal/images" in row.why
    assert first["id"] not in [one["id"] for one in queue_of(served, "requests")]


def test_all_sources_are_one_queue(served):
    images = queue_of(served, "all")
    reasons = {reason for image in images for reason in image["reasons"]}
    assert {"answered wrongly", "model and label differ"} <= reasons
