"""What is seen of live traffic: drift, the challenger, the journal."""

import asyncio
import base64
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from rootstock.model.predictor import Prediction, Predictor
from rootstock.service.watch.drift import MIN_IMAGES, Drift, psi
from tests.bundles import CLASSES, jpeg, tiny_bundle, write_tiny_bundle
from tests.service.conftest import make_client
from tests.service.http.test_routes import check_problem, post_files
from tests.service.http.test_v2 import body


def answers(predictor, novelties, labels):
    for novelty, label in zip(novelties, labels, strict=True):
        yield Prediction(label, 1.0, ((label, 1.0),), float(novelty), False)


@pytest.fixture
def watched():
    return Predictor(tiny_bundle(), threads=1)


def usual(predictor, n, *, seed=0):
    """Answers whose distances and classes are drawn from the validation set's."""
    random = np.random.default_rng(seed)
    reference = predictor.bundle.reference
    return answers(
        predictor,
        random.choice(reference.distances, n),
        random.choice(predictor.classes, n, p=reference.shares / reference.shares.sum()),
    )


def test_images_like_those_of_the_validation_set_do_not_drift(watched):
    drift = Drift(1_000)
    for answer in usual(watched, 1_000):
        drift.note(watched, answer)
    assert max(drift.scores(watched).values()) < 0.1


def test_foreign_images_and_other_classes_do(watched):
    drift = Drift(1_000)
    for answer in answers(watched, np.full(200, 5.0), [CLASSES[0]] * 200):
        drift.note(watched, answer)
    scores = drift.scores(watched)
    assert scores["features"] > 0.25
    assert scores["classes"] > 0.25
    assert drift.report(watched)["predicted"] == {CLASSES[0]: 1.0}


def test_few_images_say_nothing_and_old_ones_are_forgotten(watched):
    drift = Drift(MIN_IMAGES)
    for answer in answers(watched, np.full(MIN_IMAGES - 1, 5.0), [CLASSES[0]] * (MIN_IMAGES - 1)):
        drift.note(watched, answer)
    assert drift.scores(watched) == {}
    for answer in usual(watched, 5 * MIN_IMAGES):
        drift.note(watched, answer)
    assert drift.scores(watched)["features"] < 0.6


def test_another_model_begins_anew(watched, tmp_path):
    drift = Drift(1_000)
    for answer in usual(watched, 100):
        drift.note(watched, answer)
    other = Predictor(write_tiny_bundle(tmp_path / "other", with_reference=True, temperature=3.0))
    drift.note(other, next(usual(other, 1)))
    assert drift.report(other)["images"] == 1


def test_the_index_is_that_of_the_formula():
    found, expected = np.array([0.7, 0.3]), np.array([0.5, 0.5])
    assert psi(found, expected) == pytest.approx(0.2 * np.log(1.4) - 0.2 * np.log(0.6))
    assert psi(expected, expected) == 0


def test_drift_is_told_by_route_and_metric():
    with make_client() as client:
        empty = client.get("/v1/drift").json()
        for _ in range(-(-MIN_IMAGES // 50)):
            post_files(client, *((str(n), jpeg(0)) for n in range(50)))
        full = client.get("/v1/drift").json()
        metrics = client.get("/metrics").text
    assert (empty["images"], empty["psi"], empty["median_novelty"]) == (0, {}, None)
    assert full["psi"]["features"] > 0.25
    assert 'rootstock_drift_psi{what="features"}' in metrics


def wait_for(found, seconds=10):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if result := found():
            return result
        time.sleep(0.05)
    raise AssertionError("it did not come")


@pytest.fixture
def rival(tmp_path):
    """The same model with its classes renamed, so that it never agrees."""
    renamed = [*CLASSES[1:], CLASSES[0]]
    return str(write_tiny_bundle(tmp_path / "rival", classes=renamed).directory)


def test_a_challenger_answers_unseen(rival):
    with make_client(challenger=rival) as client:
        wait_for(lambda: client.app.state.service.challenger.holder.ready)
        for seed in range(6):
            answer = post_files(client, ("a", jpeg(seed))).json()
            assert answer["model"]["name"] == "tiny"
        report = wait_for(lambda: (r := client.get("/v1/challenger").json())["compared"] >= 4 and r)
    assert report["agreement"] == 0
    assert sum(pair["images"] for pair in report["disagreements"]) == report["compared"]
    assert report["milliseconds"]["challenger"]["p50"] > 0
    assert report["champion"] != report["challenger"]


def test_a_canary_answers_its_share(rival):
    with make_client(challenger=rival, canary_share=0.5, shadow_share=0.0) as client:
        wait_for(lambda: client.app.state.service.challenger.holder.ready)
        names = [post_files(client, ("a", jpeg(0))).json()["model"]["name"] for _ in range(40)]
    assert 8 < names.count("rival") < 32
    assert names.count("rival") + names.count("tiny") == 40


def test_a_canary_by_the_open_protocol_says_who_answered(tmp_path):
    """Of the same name, as two versions of one model have."""
    other = write_tiny_bundle(tmp_path / "tiny", temperature=3.0).directory
    with make_client(challenger=str(other), canary_share=1.0) as client:
        service = client.app.state.service
        wait_for(lambda: service.challenger.holder.ready)
        first, second = (
            client.post(path, json=body(jpeg(0))).json()["model_version"]
            for path in (
                "/v2/models/tiny/infer",
                f"/v2/models/tiny/versions/{service.holder.predictor.info['version']}/infer",
            )
        )
        assert first == service.challenger.holder.predictor.info["version"] != second
        assert client.post(
            "/invocations", json={"instances": [base64.b64encode(jpeg(0)).decode()]}
        ).is_success


def test_where_a_canary_fails_the_champion_answers(rival, monkeypatch):
    with make_client(challenger=rival, canary_share=1.0, shadow_share=0.0) as client:
        holder = client.app.state.service.challenger.holder
        wait_for(lambda: holder.ready)

        def explode(prepared):
            raise RuntimeError("the challenger")

        monkeypatch.setattr(holder.predictor, "infer", explode)
        one = post_files(client, ("a", jpeg(0)))
        two = post_files(client, ("a", jpeg(0)), ("b", b"no image"))
        counted = client.get("/metrics").text
    for answer in (one, two):
        assert (answer.status_code, answer.json()["model"]["name"]) == (200, "tiny")
    assert 'rootstock_images_total{outcome="ok"} 2.0' in counted


def test_a_canary_without_prediction_sets_leaves_them_to_the_champion(tmp_path):
    poor = write_tiny_bundle(tmp_path / "poor").directory
    with make_client(challenger=str(poor), canary_share=1.0) as client:
        wait_for(lambda: client.app.state.service.challenger.holder.ready)
        plain, sets = (post_files(client, ("a", jpeg(0)), **p) for p in ({}, {"coverage": 0.9}))
    assert plain.json()["model"]["name"] == "poor"
    assert sets.json()["model"]["name"] == "tiny"
    assert sets.json()["predictions"][0]["labels"]


def test_a_challenger_that_is_refused_is_told(tmp_path):
    broken = write_tiny_bundle(tmp_path / "broken").directory
    (broken / "model.onnx").write_bytes(b"damaged")
    with make_client(challenger=str(broken)) as client:
        report = wait_for(lambda: (r := client.get("/v1/challenger").json())["refused"] and r)
        counted = client.get("/metrics").text
    assert "model.onnx" in report["refused"]["reason"]
    assert 'rootstock_model_swaps_total{outcome="refused",role="challenger"} 1.0' in counted


def test_a_challenger_that_fails_harms_nobody(rival, monkeypatch):
    with make_client(challenger=rival) as client:
        challenger = client.app.state.service.challenger
        wait_for(lambda: challenger.holder.ready)

        async def explode(predictor, content):
            await asyncio.sleep(0)
            raise RuntimeError("challenger")

        monkeypatch.setattr(challenger, "_infer", explode)
        assert post_files(client, ("a", jpeg(0))).status_code == 200
        wait_for(lambda: client.get("/v1/challenger").json()["unusable"])


def test_without_a_challenger_there_is_no_report(client):
    check_problem(client.get("/v1/challenger"), 404, "not-found")


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


def test_nothing_is_kept_unless_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with make_client() as client:
        post_files(client, ("a", jpeg(0)))
    assert list(tmp_path.rglob("*")) == []


def test_a_journal_that_cannot_be_written_is_only_told(tmp_path, caplog):
    with make_client(journal=tmp_path / "journal") as client:
        (tmp_path / "journal").rmdir()
        (tmp_path / "journal").write_text("a file in the way")
        assert post_files(client, ("a", jpeg(0))).status_code == 200
    assert "1 rows of the journal are lost" in caplog.text
