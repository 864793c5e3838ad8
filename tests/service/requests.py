"""Requests to a service in a test, and checks of the answers."""

import base64
import time

PROBLEM = "urn:rootstock:problem:"


def post_files(client, *files, **params):
    return client.post("/v1/predict", files=[("files", file) for file in files], params=params)


def base64_text(content):
    return base64.b64encode(content).decode()


def check_problem(response, status, kind):
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["type"] == PROBLEM + kind
    assert body["status"] == status
    assert body["title"]
    return body["detail"]


def wait_for(found, seconds=10):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if result := found():
            return result
        time.sleep(0.05)
    raise AssertionError("it did not come")
