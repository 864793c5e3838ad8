"""The counters of /metrics."""

import re

from tests.bundles import jpeg, tiny_bundle
from tests.service.conftest import make_client


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
        client.post("/v1/predict", content=b"x", headers={"content-encoding": "gzip"})
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


def test_metrics_without_a_model_say_not_ready(empty_client):
    assert "rootstock_ready 0.0" in empty_client.get("/metrics").text


def test_series_that_alerts_watch_begin_at_zero():
    """Prometheus does not see the step to a series' first value."""
    with make_client(challenger=str(tiny_bundle())) as client:
        text = client.get("/metrics").text
    for role in ("champion", "challenger"):
        assert f'rootstock_model_swaps_total{{outcome="refused",role="{role}"}} 0.0' in text
    for route in ("/v1/predict", "/v2/models/{name}/infer", "/invocations"):
        for status in (200, 500, 503):
            labels = f'method="POST",route="{route}",status="{status}"'
            assert f"rootstock_http_requests_total{{{labels}}} 0.0" in text
    assert 'rootstock_problems_total{type="overloaded"} 0.0' in text
    assert 'rootstock_images_total{outcome="ok"} 0.0' in text
