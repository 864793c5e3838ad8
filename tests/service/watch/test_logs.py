"""The lines of the log."""

import io
import json
import logging
import os
import subprocess
import sys

from rootstock.service.watch.logs import JsonFormatter, request_id


def test_logs_are_json_with_the_requests_id():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    log = logging.Logger("rootstock.access", logging.INFO)
    log.addHandler(handler)
    token = request_id.set("order-17")
    log.info('said "%s"', "yes\nno", extra={"status": 200})
    request_id.reset(token)
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert (found["request_id"], found["status"], found["message"]) == (
        "order-17",
        200,
        'said "yes\nno"',
    )


def test_lines_carry_the_id_of_the_trace(tmp_path):
    """Run in a separate process: a process keeps its first tracer provider."""
    code = """
import logging, sys
from fastapi.testclient import TestClient
from rootstock.service.http.app import create_app
from rootstock.service.settings import Settings
from rootstock.service.watch.logs import set_up_logs
from rootstock.service.watch.tracing import set_up_tracing, tracer

set_up_tracing()
set_up_logs("json")
with tracer.start_as_current_span("work"):
    logging.getLogger("rootstock.service").info("inside")
with TestClient(create_app(Settings(model=sys.argv[1], decoders=1))) as client:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client.get("/v1/challenger", headers={"traceparent": parent})
"""
    variables = {"OTEL_TRACES_EXPORTER": "console", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    inside = next(line for line in lines if line["message"] == "inside")
    request = next(line for line in lines if line["logger"] == "rootstock.access")
    assert len(inside["trace_id"]) == 32
    assert request["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
