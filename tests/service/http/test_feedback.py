"""True labels of answers: from the request to the metric."""

import hashlib
import json

import pytest

from rootstock.client import Client
from tests.bundles import jpeg
from tests.cli.test_cli import run
from tests.service.conftest import make_client
from tests.service.requests import check_problem, post_files


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def client(journal):
    with make_client(journal=journal) as client:
        yield client


def ask(client, *seeds):
    answer = post_files(client, *((str(seed), jpeg(seed)) for seed in seeds))
    labels = [entry["top"][0]["label"] for entry in answer.json()["predictions"]]
    return answer.headers["x-request-id"], labels


def test_feedback_on_fresh_answer_changes_live_accuracy(client, journal):
    identity, (label,) = ask(client, 0)
    body = {"request_id": identity, "label": label}
    stored = client.post("/v1/feedback", json=body).json()
    assert (stored["score"], stored["answer"]) == (1.0, label)
    assert stored["live"]["images"] == 1
    text = client.get("/metrics").text
    assert 'rootstock_live_score{bound="value",metric="accuracy"} 1.0' in text
    assert 'rootstock_live_score_images{metric="accuracy"} 1.0' in text
    stored = client.post("/v1/feedback", json=body | {"label": "something else"}).json()
    assert (stored["score"], stored["live"]["value"], stored["live"]["images"]) == (0.0, 0.0, 1)
    assert len((journal / "feedback.csv").read_text().splitlines()) == 3


def test_feedback_on_answer_that_was_written_survives_restart(client, journal):
    identity, (label,) = ask(client, 0)
    client.app.state.service.journal.write()
    assert client.post("/v1/feedback", json={"request_id": identity, "label": label}).is_success
    with make_client(journal=journal) as again:
        assert "rootstock_live_score" in again.get("/metrics").text
        other = {"request_id": identity, "label": "rose"}
        assert again.post("/v1/feedback", json=other).json()["live"]["images"] == 1


def test_hash_selects_one_of_several_images(client):
    identity, labels = ask(client, 0, 1)
    body = {"request_id": identity, "label": labels[1]}
    assert "2 images" in check_problem(client.post("/v1/feedback", json=body), 409, "conflict")
    named = body | {"sha256": hashlib.sha256(jpeg(1)).hexdigest()}
    assert client.post("/v1/feedback", json=named).json()["score"] == 1.0
    other = body | {"sha256": "0" * 64}
    check_problem(client.post("/v1/feedback", json=other), 404, "not-found")


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"request_id": "none", "label": "rose"}, 404, "not-found"),
        ({"request_id": "none"}, 422, "invalid-request"),
        ({"request_id": "", "label": "rose"}, 422, "invalid-request"),
        ({"request_id": "none", "label": "rose", "more": 1}, 422, "invalid-request"),
        ({"request_id": "none", "label": "rose", "sha256": "x"}, 422, "invalid-request"),
        ({"request_id": "none", "label": "r" * 5000}, 422, "invalid-request"),
    ],
)
def test_wrong_feedback_is_explained(client, body, status, kind):
    check_problem(client.post("/v1/feedback", json=body), status, kind)


def test_an_empty_label_is_rejected_and_nothing_stored(client, journal):
    identity, _ = ask(client, 0)
    check_problem(
        client.post("/v1/feedback", json={"request_id": identity, "label": " "}),
        422,
        "invalid-request",
    )
    assert not (journal / "feedback.csv").exists()


def test_a_service_without_a_journal_takes_no_feedback():
    with make_client() as client:
        detail = check_problem(
            client.post("/v1/feedback", json={"request_id": "x", "label": "rose"}), 409, "conflict"
        )
        assert "ROOTSTOCK_JOURNAL" in detail
        assert "rootstock_live_score{" not in client.get("/metrics").text


def test_feedback_needs_the_key_that_predictions_need(journal, keys):
    path, (shop, _, _) = keys
    with make_client(journal=journal, keys=path) as client:
        body = {"request_id": "none", "label": "rose"}
        check_problem(client.post("/v1/feedback", json=body), 401, "unauthorized")
        known = client.post("/v1/feedback", json=body, headers={"X-API-Key": shop})
        check_problem(known, 404, "not-found")


def test_full_disk_is_problem_that_may_pass(client, journal, monkeypatch):
    identity, (label,) = ask(client, 0)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    response = client.post("/v1/feedback", json={"request_id": identity, "label": label})
    check_problem(response, 503, "lost")
    assert (journal / "feedback.csv").read_text() == ""


def test_the_client_of_the_package_sends_feedback(client):
    identity, (label,) = ask(client, 0)
    own = Client("http://testserver")
    own._http = client
    assert own.feedback(identity, label)["score"] == 1.0


def test_table_of_labels_is_judged_from_journal(client, journal, tmp_path, capsys):
    identity, (label,) = ask(client, 0)
    client.app.state.service.journal.write()
    table = tmp_path / "labels.csv"
    table.write_text(f"request_id,label\n{identity},{label}\nnone,rose\n")
    with pytest.raises(SystemExit) as caught:
        run(capsys, "feedback", table, "--journal", journal)
    assert caught.value.code == 1
    told = capsys.readouterr()
    assert "1 of 2 labels stored, mean score 1.000" in told.out
    assert "line 3: the journal has no request with this id" in told.err
    table.write_text(f"request_id,label\n{identity},{label}\n")
    assert json.loads(run(capsys, "feedback", table, "--journal", journal, "--json")) == {
        "stored": 1,
        "refused": [],
    }
