"""The open routes: health checks and pages."""

import re
import threading
import time

import pytest

from tests.bundles import jpeg
from tests.service.conftest import make_client
from tests.service.requests import check_problem


def test_service_with_model_is_alive_and_ready(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_service_without_model_is_alive_but_not_ready(empty_client):
    assert empty_client.get("/healthz").status_code == 200
    for response in (
        empty_client.get("/readyz"),
        empty_client.get("/v1/model"),
        empty_client.post("/v1/predict", files={"files": ("a.jpg", jpeg(0))}),
    ):
        check_problem(response, 503, "no-model")
        assert response.headers["retry-after"] == "60"


def test_every_readiness_route_says_the_same(monkeypatch):
    with make_client() as client:
        paths = ("/readyz", "/v2/health/ready", "/ping")
        assert [client.get(path).status_code for path in paths] == [200] * 3
        client.app.state.services.resources.draining = True
        assert [client.get(path).status_code for path in paths] == [503] * 3
        assert client.head("/healthz").status_code == 200


def test_mlflows_ping_is_readiness(client, empty_client):
    assert client.get("/ping").status_code == 200
    assert empty_client.get("/ping").status_code == 503


def test_engine_that_hangs_is_neither_ready_nor_alive(monkeypatch):
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
        assert "No decoder is running" in check_problem(client.get("/readyz"), 503, "lost")
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_elsewhere(client, path):
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", response.text)
