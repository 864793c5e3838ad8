"""The journal of answers."""

import threading
import time

import pyarrow.parquet as pq
import pytest

from rootstock.model.predictor import Predictor
from rootstock.service.watch import journal as journal_module
from rootstock.service.watch.journal import Journal
from tests.bundles import jpeg, tiny_bundle
from tests.service.conftest import make_client
from tests.service.requests import base64_text, check_problem, post_files
from tests.tasks.brightness import NumberAnswer


@pytest.mark.parametrize("images", [True, False])
def test_the_journal_holds_what_was_answered(tmp_path, images):
    with make_client(journal=tmp_path / "journal", journal_images=images) as client:
        answer = post_files(client, ("a", jpeg(0)), ("b", b"no image"), ("c", jpeg(1)))
    [file] = (tmp_path / "journal").glob("*.parquet")
    rows = pq.read_table(file).to_pylist()
    tops = [entry["top"][0]["label"] for entry in answer.json()["predictions"] if "top" in entry]
    assert [row["label"] for row in rows] == tops
    assert {row["request_id"] for row in rows} == {answer.headers["x-request-id"]}
    kept = [path for path in (tmp_path / "journal/images").rglob("*") if path.is_file()]
    assert sorted(path.name for path in kept) == (
        sorted(row["sha256"] for row in rows) if images else []
    )


def test_answers_of_two_tasks_get_a_file_each(tmp_path):
    """A model of a different task may follow within a minute."""
    predictor = Predictor(tiny_bundle(), engine="onnx")
    classes = predictor.predict([jpeg(0), jpeg(1)])
    journal = Journal(tmp_path, images=False)
    journal.note("1", predictor, [b"a"], classes[:1])
    journal.note("2", predictor, [b"b"], [NumberAnswer(value=0.5)])
    journal.note("3", predictor, [b"c"], classes[1:])
    journal.write()
    tables = [pq.read_table(file).to_pylist() for file in tmp_path.glob("*.parquet")]
    by_request = {row["request_id"]: row for rows in tables for row in rows}
    assert sorted(len(rows) for rows in tables) == [1, 2]
    assert by_request["2"]["value"] == 0.5
    assert "label" not in by_request["2"]
    assert [by_request[number]["label"] for number in "13"] == [one.label for one in classes]


def test_without_a_journal_nothing_is_stored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with make_client() as client:
        post_files(client, ("a", jpeg(0)))
    assert list(tmp_path.rglob("*")) == []


def test_journal_that_cannot_be_written_is_only_logged(tmp_path, caplog):
    with make_client(journal=tmp_path / "journal") as client:
        (tmp_path / "journal").rmdir()
        (tmp_path / "journal").write_text("a file in the way")
        assert post_files(client, ("a", jpeg(0))).status_code == 200
    assert "1 rows of the journal are lost" in caplog.text


def test_only_answered_requests_are_journalled(tmp_path):
    with make_client(journal=tmp_path) as client:
        name = client.get("/v1/model").json()["name"]
        images = {
            "name": "images",
            "datatype": "BYTES",
            "shape": [1],
            "data": [base64_text(jpeg(0))],
        }
        asked = [
            client.post(f"/v2/models/{name}/infer", json={"inputs": [images]}),
            client.post("/invocations", json={"instances": [base64_text(jpeg(1))]}),
            post_files(client, ("a", jpeg(2))),
        ]
        assert {answer.status_code for answer in asked} == {200}
        assert 'rootstock_images_total{outcome="ok"} 3.0' in client.get("/metrics").text
        refused = client.post(
            "/invocations", json={"instances": [base64_text(jpeg(1)), base64_text(b"none")]}
        )
        assert "image[1]: " in check_problem(refused, 422, "unusable-image")
    (journal,) = tmp_path.glob("*.parquet")
    assert pq.read_table(journal).num_rows == 3


@pytest.fixture
def hanging_disk(monkeypatch):
    """Block all writes until the test allows them."""
    release = threading.Event()
    write = journal_module.write_atomic

    def hang(path):
        release.wait(30)
        return write(path)

    monkeypatch.setattr(journal_module, "write_atomic", hang)
    yield release
    release.set()


def test_a_disk_that_hangs_holds_up_no_answer(tmp_path, hanging_disk, monkeypatch):
    monkeypatch.setattr(journal_module, "MAX_ROWS", 1)
    with make_client(journal=tmp_path, journal_images=True) as client:
        start = time.monotonic()
        for seed in range(5):
            assert post_files(client, ("a", jpeg(seed))).status_code == 200
        assert time.monotonic() - start < 10
        hanging_disk.set()
    rows = [row for file in tmp_path.glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    assert len(rows) == 5


def test_what_no_longer_waits_for_disk_is_counted(tmp_path, hanging_disk, monkeypatch, caplog):
    monkeypatch.setattr(journal_module, "MAX_ROWS", 2)
    monkeypatch.setattr(journal_module, "MAX_WAITING_ROWS", 6)
    predictor = Predictor(tiny_bundle(), engine="onnx")
    answers = predictor.predict([jpeg(0)])
    journal = Journal(tmp_path, images=False)
    for number in range(10):
        journal.note(str(number), predictor, [b"a"], answers)
    assert journal.dropped == 4
    journal.write(seconds=0.1)
    assert "10 answers are not in the journal" in caplog.text
    hanging_disk.set()
    journal.write(seconds=30)
    rows = [row for file in tmp_path.glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    assert sorted(row["request_id"] for row in rows) == list("012345")


def test_answers_that_are_left_out_are_counted(tmp_path, hanging_disk, monkeypatch):
    monkeypatch.setattr(journal_module, "MAX_ROWS", 1)
    monkeypatch.setattr(journal_module, "MAX_WAITING_ROWS", 2)
    with make_client(journal=tmp_path) as client:
        assert "rootstock_journal_rows_dropped_total 0.0" in client.get("/metrics").text
        for seed in range(5):
            assert post_files(client, ("a", jpeg(seed))).status_code == 200
        assert "rootstock_journal_rows_dropped_total 3.0" in client.get("/metrics").text
        hanging_disk.set()


def test_rows_that_cannot_be_written_are_counted(tmp_path):
    lost = []
    journal = Journal(tmp_path / "journal", images=False, on_loss=lost.append)
    predictor = Predictor(tiny_bundle(), engine="onnx")
    journal.note("1", predictor, [b"a", b"b"], predictor.predict([jpeg(0), jpeg(1)]))
    (tmp_path / "journal").rmdir()
    (tmp_path / "journal").touch()
    journal.write()
    assert lost == [2]
