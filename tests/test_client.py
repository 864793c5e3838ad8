"""The client against a real service on a real socket."""

import os
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from rootstock import client as client_module
from rootstock.client import BATCH, Client, ServiceError
from rootstock.model.predictor import Predictor
from tests.bundles import jpeg, tiny_bundle
from tests.service.test_serve import running

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def url():
    with running("--model", str(tiny_bundle()), ROOTSTOCK_RATE_PER_SECOND="50") as (address, _):
        yield address


def test_answers_are_those_of_the_predictor(url, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    images = [tmp_path / "a.jpg", *(jpeg(seed) for seed in range(1, BATCH + 3)), b"no image"]
    with Client(url) as client:
        answers = client.predict(images, coverage=0.5)
    contents = [jpeg(seed) for seed in range(BATCH + 3)]
    expected = Predictor(tiny_bundle()).predict(contents, coverage=0.5)
    assert answers[0].filename == "a.jpg"
    for answer, one in zip(answers, expected, strict=False):
        assert (answer.label, answer.labels) == (one.label, one.labels)
        assert answer.probability == pytest.approx(one.probability, abs=1e-4)
        assert answer.unknown == one.unknown
    assert answers[-1].error.reason == "not-an-image"
    assert answers[-1].label == ""
    assert len(answers) == len(images)


def test_a_single_bad_image_is_an_answer_too(url):
    with Client(url) as client:
        [answer] = client.predict([b"no image"])
        assert client.embeddings([b"no image"]) == [None]
    assert "not an image" in str(answer.error)
    assert answer.error.reason == "not-an-image"


def test_requests_are_as_large_as_the_service_takes(url, monkeypatch):
    """Photos of many megabytes are sent a few at a time, the largest one separately."""
    monkeypatch.setattr(client_module, "BATCH_BYTES", 3 * len(jpeg(0)))
    sent, send = [], Client._send

    def counted(self, *arguments, files, **named):
        sent.append(len(files))
        return send(self, *arguments, files=files, **named)

    monkeypatch.setattr(Client, "_send", counted)
    with Client(url) as client:
        answers = client.predict([jpeg(0), jpeg(0), jpeg(0) + b"x" * 99_999, jpeg(0)])
    assert sent == [2, 1, 1]
    assert all(answer.label for answer in answers)


def test_any_name_of_a_file_will_do(url, tmp_path):
    names = ["x.html", "x.jpg.bak", os.fsdecode(b"\xff.jpg")]
    for name in names:
        (tmp_path / name).write_bytes(jpeg(0))
    with Client(url) as client:
        answers = client.predict([tmp_path / name for name in names])
    assert [answer.filename for answer in answers] == [*names[:2], "?.jpg"]
    assert all(answer.label for answer in answers)


@pytest.mark.parametrize("image", ["a.jpg", Path("a.jpg"), b"abc"])
def test_single_image_instead_of_list_is_an_error(url, image):
    with Client(url) as client, pytest.raises(TypeError, match=r"write \[image\]"):
        client.predict(image)


def test_key_from_file_is_stripped_and_hidden(url):
    with Client(url, key="rsk_abc\n") as client:
        assert client.model()
    for key in ("rsk_ä", "rsk_\nabc"):
        with pytest.raises(ServiceError) as caught:
            Client(url, key=key)
        assert "rsk" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "content", "headers", "says"),
    [
        (200, b"<html>log in</html>", {}, "is not a Rootstock service"),
        (200, b"[1]", {}, "is not a Rootstock service"),
        (200, b"no gzip", {"Content-Encoding": "gzip"}, "cannot be reached"),
        (404, b"[1]", {}, "HTTP 404"),
    ],
)
def test_other_server_is_reported(status, content, headers, says):
    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with Client(address, retries=0) as client, pytest.raises(ServiceError, match=says):
            client.model()
        server.shutdown()


def test_invalid_url_is_reported():
    with pytest.raises(ServiceError, match="not a valid service URL"):
        Client("http://[::1")


def test_embeddings_and_model(url):
    with Client(url) as client:
        [found] = client.embeddings([jpeg(0)])
        width = client.model()["metrics"]
    assert len(found) > 1
    assert width["accuracy"] == 0.5


def test_wrong_request_is_error_with_its_kind(url):
    with Client(url) as client, pytest.raises(ServiceError) as caught:
        client.predict([jpeg(0)], coverage=2.0)
    assert (caught.value.status, caught.value.kind) == (422, "invalid-request")


def test_client_waits_as_long_as_requested(url):
    with Client(url) as client:
        for _ in range(60):
            client.predict([jpeg(0)])


def test_unreachable_service_fails_after_retries():
    started = time.monotonic()
    with (
        Client("http://127.0.0.1:9", retries=1) as client,
        pytest.raises(ServiceError, match="cannot be reached"),
    ):
        client.model()
    assert time.monotonic() - started < 10
