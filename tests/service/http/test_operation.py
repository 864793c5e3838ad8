"""Health, metrics, pages, OpenAPI, and the problems that are not about images."""

import re
import threading
import time

import pytest
from fastapi.testclient import TestClient

from tests.bundles import CLASSES, jpeg
from tests.service.conftest import make_client
from tests.service.http.test_routes import check_problem


def test_a_service_with_a_model_is_alive_and_ready(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_a_service_without_a_model_is_alive_but_not_ready(empty_client):
    assert empty_client.get("/healthz").status_code == 200
    for response in (
        empty_client.get("/readyz"),
        empty_client.get("/v1/model"),
        empty_client.post("/v1/predict", files={"files": ("a.jpg", jpeg(0))}),
    ):
        check_problem(response, 503, "no-model")
        assert response.headers["retry-after"] == "60"


def test_the_model_tells_what_it_is(client, predictor):
    body = client.get("/v1/model").json()
    assert body["classes"] == CLASSES
    assert body["preprocess_hash"] == predictor.bundle.preprocess.hash
    assert body["digest"] == predictor.bundle.digest
    assert body["metrics"]["accuracy"] == 0.5
    assert body["lineage"]["data_hash"] == "d"


def test_metrics_count_requests_and_images_by_outcome():
    with make_client() as client:
        client.post("/v1/predict", files={"files": ("a.jpg", jpeg(0))})
        client.post("/v1/predict", files={"files": ("a.jpg", b"no image at all")})
        client.get("/no/such/address/1")
        client.get("/no/such/address/2")
        text = client.get("/metrics").text
    assert 'rootstock_images_total{outcome="ok"} 1.0' in text
    assert 'rootstock_images_total{outcome="not-an-image"} 1.0' in text
    assert (
        'rootstock_http_requests_total{method="POST",route="/v1/predict",status="422"} 1.0' in text
    )
    assert 'rootstock_http_requests_total{method="other",route="other",status="404"} 2.0' in text
    assert re.search(r'rootstock_model_info\{.*name=".+",strategy="linear_probe",.*\} 1\.0', text)
    assert "rootstock_ready 1.0" in text


def test_stages_batches_and_problems_are_counted(monkeypatch):
    with make_client(max_images=2) as client:
        for seeds in ((0,), (1, 2)):
            client.post("/v1/predict", files=[("files", ("a", jpeg(seed))) for seed in seeds])
        client.post("/v1/predict", content=b"x", headers={"content-type": "text/plain"})
        client.post("/v1/predict", files=[("files", ("a", jpeg(0)))] * 3)
        client.app.state.service.in_flight = 1_000
        client.post("/v1/predict", files={"files": ("a", jpeg(0))})
        text = client.get("/metrics").text
    value = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    stage = 'rootstock_stage_duration_seconds_{}{{stage="{}"}}'
    assert value[stage.format("count", "decode")] == "3.0"
    for name in ("queue", "decode", "infer"):
        assert float(value[stage.format("sum", name)]) > 0
    assert value["rootstock_batch_size_sum"] == "3.0"
    assert value["rootstock_queue_images"] == "1000.0"
    for kind in ("unsupported-media-type", "invalid-request", "overloaded"):
        assert value[f'rootstock_problems_total{{type="{kind}"}}'] == "1.0"
    assert {"process_resident_memory_bytes", "process_open_fds"} <= set(value)
    assert "python_info{" in text


def test_an_engine_that_hangs_is_neither_ready_nor_alive(monkeypatch):
    entered, end = threading.Event(), threading.Event()

    def hang(_prepared):
        entered.set()
        end.wait(20)

    with make_client(deadline_seconds=1) as client:
        service = client.app.state.service
        monkeypatch.setattr(service.holder.predictor, "infer", hang)
        check_problem(client.post("/v1/predict", files={"files": ("a", jpeg(0))}), 503, "too-late")
        assert entered.wait(20)
        assert client.get("/readyz").status_code == 200
        monkeypatch.setattr("rootstock.service.inference.batcher.STUCK_SECONDS", 0.1)
        time.sleep(0.2)
        for path in ("/readyz", "/healthz", "/v2/health/live", "/ping"):
            assert "engine hangs" in check_problem(client.get(path), 503, "lost")
        end.set()


def test_without_a_decoder_nothing_is_sent_here(monkeypatch):
    monkeypatch.setattr("rootstock.service.inference.decoder.WATCH_SECONDS", 60)
    with make_client() as client:
        service = client.app.state.service
        assert client.get("/readyz").status_code == 200
        for worker in service.decoders._workers:
            worker.kill()
        deadline = time.monotonic() + 20
        while service.decoders.alive and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "No decoder is alive" in check_problem(client.get("/readyz"), 503, "lost")
        assert client.get("/healthz").status_code == 200


def test_metrics_without_a_model_say_not_ready(empty_client):
    assert "rootstock_ready 0.0" in empty_client.get("/metrics").text


def test_an_unknown_address_is_a_404(client):
    check_problem(client.get("/nowhere"), 404, "not-found")


def test_a_wrong_method_is_a_405_that_names_the_right_one(client):
    response = client.get("/v1/predict")
    assert "POST" in check_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "where",
    [
        "rootstock.model.predictor.Predictor.infer",
        "rootstock.service.http.routes.choose_model",
        "rootstock.service.http.keys.RateLimit.wait",  # before FastAPI has the request
    ],
)
def test_a_failure_tells_nothing_of_the_inside(monkeypatch, where):
    def explode(*args, **kwargs):
        raise RuntimeError("secret path /home/x")

    with TestClient(make_client().app, raise_server_exceptions=False) as quiet:
        monkeypatch.setattr(where, explode)
        response = quiet.post("/v1/predict", files={"files": ("a.jpg", jpeg(0))})
    assert "secret" not in check_problem(response, 500, "internal")


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_elsewhere(client, path):
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", response.text)


def test_every_operation_is_documented_with_examples(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/predict", "/v1/model", "/healthz", "/readyz", "/metrics"} <= set(paths)
    for operation in (entry for verbs in paths.values() for entry in verbs.values()):
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"]
    predict = paths["/v1/predict"]["post"]
    refusals = {"400", "401", "408", "413", "415", "422", "429", "500", "503"}
    assert set(predict["responses"]) == {"200"} | refusals
    assert {"multipart/form-data", "image/jpeg"} <= set(predict["requestBody"]["content"])
    for operation in (entry for verbs in paths.values() for entry in verbs.values()):
        for status, answer in operation["responses"].items():
            if status != "200":
                assert answer["content"]["application/problem+json"]["examples"]
            assert ("Retry-After" in answer.get("headers", {})) == (status in ("429", "503"))


def test_only_what_needs_a_key_says_so(client):
    paths = client.get("/openapi.json").json()["paths"]
    for path, verbs in paths.items():
        for operation in verbs.values():
            assert ("security" in operation) == ("401" in operation["responses"])
            assert ("403" in operation["responses"]) == path.startswith("/admin")
    assert "security" not in paths["/healthz"]["get"]
    assert set(paths["/metrics"]["get"]["responses"]["200"]["content"]) == {"text/plain"}


@pytest.mark.parametrize(
    "path", ["/v1/predict", "/v1/embeddings", "/v2/models/{name}/infer", "/invocations"]
)
def test_the_example_of_each_body_works_as_it_stands(client, path):
    api = client.get("/openapi.json").json()
    body = api["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    example = body.get("example")
    if example is None:
        example = api["components"]["schemas"][body["schema"]["$ref"].split("/")[-1]]["examples"][0]
    response = client.post(path.replace("{name}", "tiny"), json=example)
    assert response.status_code == 200, response.text
