"""The lines of the log."""

import io
import json
import logging

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
