"""The client against a real service on a real socket."""

import time

import pytest

from rootstock.client import BATCH, Client, ServiceError
from rootstock.predict import Predictor
from tests.bundles import jpeg, tiny_bundle
from tests.services.test_server import running

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
    assert answers[-1].reason == "not-an-image"
    assert answers[-1].label == ""
    assert len(answers) == len(images)


def test_a_single_bad_image_is_an_answer_too(url):
    with Client(url) as client:
        [answer] = client.predict([b"no image"])
        assert client.embeddings([b"no image"]) == [None]
    assert "not an image" in answer.error


def test_embeddings_and_model(url):
    with Client(url) as client:
        [found] = client.embeddings([jpeg(0)])
        width = client.model()["metrics"]
    assert len(found) > 1
    assert width["accuracy"] == 0.5


def test_a_wrong_request_is_an_error_with_its_kind(url):
    with Client(url) as client, pytest.raises(ServiceError) as caught:
        client.predict([jpeg(0)], coverage=2.0)
    assert (caught.value.status, caught.value.kind) == (422, "invalid-request")


def test_a_client_that_asks_too_often_waits_as_it_is_told(url):
    with Client(url) as client:
        for _ in range(60):
            client.predict([jpeg(0)])


def test_nobody_there_is_told_after_some_tries():
    started = time.monotonic()
    with (
        Client("http://127.0.0.1:9", retries=1) as client,
        pytest.raises(ServiceError, match="cannot be reached"),
    ):
        client.model()
    assert time.monotonic() - started < 10
