"""Every request gets an id, the security headers, and a line in the log."""

import pytest

from tests.bundles import jpeg
from tests.service.conftest import make_client


@pytest.mark.parametrize(
    ("shown", "kept"), [("order-17", True), ("two words", False), ("x" * 200, False)]
)
def test_a_harmless_request_id_is_kept(client, shown, kept):
    found = client.get("/healthz", headers={"X-Request-ID": shown}).headers["x-request-id"]
    assert (found == shown) == kept
    assert 1 <= len(found) <= 128


@pytest.mark.parametrize("path", ["/", "/v1/model", "/nowhere", "/metrics"])
def test_every_answer_carries_the_security_headers(client, path):
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


def test_a_request_is_logged_once_with_its_caller(keys, caplog):
    path, (shop, *_) = keys
    with make_client(keys=path) as client, caplog.at_level("INFO", "rootstock.access"):
        client.post("/v1/predict", files={"files": jpeg(0)}, headers={"X-API-Key": shop})
        client.get("/healthz")
    (record,) = [r for r in caplog.records if r.name == "rootstock.access"]
    assert record.caller == "key shop"
    assert record.status == 200
    assert shop not in caplog.text


@pytest.mark.parametrize(
    ("path", "lines"), [("/readyz", 0), ("/v2/health/live", 0), ("/", 1), ("/v1/drift", 1)]
)
def test_health_checks_are_not_logged(client, caplog, path, lines):
    with caplog.at_level("INFO", "rootstock.access"):
        client.get(path)
    assert [r.name for r in caplog.records].count("rootstock.access") == lines


def test_refusals_count_under_their_route(keys):
    path, (shop, *_) = keys
    with make_client(keys=path) as client:
        client.app.state.service.in_flight = 1_000
        for route in ("/v1/predict", "/v2/models/tiny/infer"):
            assert client.post(route, headers={"X-API-Key": shop}).status_code == 503
            assert client.post(route).status_code == 401
        assert client.get("/v1/nothing").status_code == 401
        text = client.get("/metrics").text
    count = 'rootstock_http_requests_total{{method="{}",route="{}",status="{}"}} 1.0'
    for route in ("/v1/predict", "/v2/models/{name}/infer"):
        for status in (401, 503):
            assert count.format("POST", route, status) in text
    assert count.format("other", "other", 401) in text
