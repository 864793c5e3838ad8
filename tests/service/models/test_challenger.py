"""The challenger: shadow answers, its share of real answers, and its faults."""

import asyncio
import base64

import pytest

from tests.bundles import CLASSES, jpeg, write_tiny_bundle
from tests.service.conftest import make_client
from tests.service.http.test_v2 import body
from tests.service.requests import check_problem, post_files, wait_for


@pytest.fixture
def rival(tmp_path):
    """The same model with renamed classes, so that it never agrees."""
    renamed = [*CLASSES[1:], CLASSES[0]]
    return str(write_tiny_bundle(tmp_path / "rival", names=renamed).directory)


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


def test_canary_by_open_protocol_says_who_answered(tmp_path):
    """Give it the same name, like two versions of one model."""
    other = write_tiny_bundle(tmp_path / "tiny", calibration={"temperature": 3.0}).directory
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


def test_champion_answers_if_a_canary_fails(rival, monkeypatch):
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


def test_canary_without_prediction_sets_leaves_them_to_champion(tmp_path):
    poor = write_tiny_bundle(tmp_path / "poor").directory
    with make_client(challenger=str(poor), canary_share=1.0) as client:
        wait_for(lambda: client.app.state.service.challenger.holder.ready)
        plain, sets = (post_files(client, ("a", jpeg(0)), **p) for p in ({}, {"coverage": 0.9}))
    assert plain.json()["model"]["name"] == "poor"
    assert sets.json()["model"]["name"] == "tiny"
    assert sets.json()["predictions"][0]["labels"]


def test_a_rejected_challenger_is_reported(tmp_path):
    broken = write_tiny_bundle(tmp_path / "broken").directory
    (broken / "model.onnx").write_bytes(b"damaged")
    with make_client(challenger=str(broken)) as client:
        report = wait_for(lambda: (r := client.get("/v1/challenger").json())["refused"] and r)
        counted = client.get("/metrics").text
    assert "model.onnx" in report["refused"]["reason"]
    assert 'rootstock_model_swaps_total{outcome="refused",role="challenger"} 1.0' in counted


def test_failing_challenger_does_not_affect_answers(rival, monkeypatch):
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
