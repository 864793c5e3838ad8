"""The Production page: counters of a real service, its journal, and unusual images."""

import time

import pytest

from rootstock.service.inference.service import Service
from rootstock.studio.production import (
    BUCKETS,
    Production,
    ServiceDownError,
    draw_timeline,
    find_quantile,
    list_foreign,
    read_counters,
)
from tests.bundles import jpeg
from tests.service.conftest import make_client
from tests.service.requests import check_problem, post_files
from tests.studio.conftest import open_studio, running

NOW = 1_800_000_000_000


def answer(number, **facts):
    row = {"time_ms": NOW + 1000 * number, "sha256": f"{number:064x}", "novelty": number / 100}
    return row | {"label": "ant", "probability": 0.9, "unknown": False} | facts


def test_counters_are_those_of_the_service(tiny_service_text):
    found = read_counters(tiny_service_text)
    assert found["requests"] == 3
    assert found["images"] == 3
    assert found["ready"]
    assert found["latency"]["p50"] > 0
    assert found["model"]["version"]


@pytest.fixture
def tiny_service_text(tmp_path):
    with make_client() as client:
        for number in range(3):
            assert post_files(client, ("a.jpg", jpeg(number))).status_code == 200
        assert isinstance(client.app.state.service, Service)
        return client.get("/metrics").text


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ({}, 0.5, None),
        ({0.1: 0, float("inf"): 0}, 0.5, None),
        ({0.1: 10, 0.2: 20, float("inf"): 20}, 0.5, 0.1),
        ({0.1: 10, 0.2: 20, float("inf"): 20}, 0.75, 0.15),
        ({0.1: 10, float("inf"): 20}, 0.9, 0.1),
    ],
)
def test_a_quantile_is_read_from_the_buckets(buckets, share, expected):
    assert find_quantile(buckets, share) == pytest.approx(expected)


def test_the_timeline_holds_every_answer():
    parts = draw_timeline([answer(n, unknown=n % 10 == 0) for n in range(100)])
    assert len(parts) == BUCKETS
    assert sum(one["answers"] for one in parts) == 100
    assert sum(one["unknown"] for one in parts) == 10


def test_the_most_foreign_images_come_first_and_once():
    rows = [answer(n % 40) for n in range(80)]
    found = list_foreign(rows)
    assert len(found) == 24
    assert [one["novelty"] for one in found] == sorted({n / 100 for n in range(40)}, reverse=True)[
        :24
    ]


@pytest.mark.integration
def test_a_service_that_does_not_answer_is_explained(finished):
    with pytest.raises(ServiceDownError, match="does not answer"):
        Production("http://127.0.0.1:9", "", None).ask_service()
    found = open_studio(finished, service="http://127.0.0.1:9").get("/api/production").json()
    assert "rootstock serve" in found["problem"]["todo"]
    model = open_studio(finished, service="http://127.0.0.1:9").get("/api/production/model").json()
    assert model["problem"] == found["problem"]
    assert (model["name"], model["models"]) == ("rootstock", None)


@pytest.mark.integration
def test_server_that_is_not_an_inference_service_is_explained(finished):
    with (
        running(finished) as other,  # it has no /metrics
        pytest.raises(
            ServiceDownError, match=r"does not answer: Client error '404[^\n]*metrics'\n  ->"
        ),
    ):
        Production(other, "", None).ask_service()


@pytest.mark.integration
def test_without_service_and_journal_nothing_is_asked(client):
    found = client.get("/api/production").json()
    assert not found["known"]
    assert found["journal"] is None


@pytest.mark.integration
def test_journal_of_service_is_shown_with_its_images(finished, tmp_path):
    journal = tmp_path / "journal"
    with make_client(journal=journal, journal_images=True) as service:
        for number in range(4):
            post_files(service, ("a.jpg", jpeg(number)))
    studio = open_studio(finished, journal=journal)
    until = time.monotonic() + 10
    while not (found := studio.get("/api/production").json()["journal"])["answers"]:
        assert time.monotonic() < until
    assert found["answers"] == 4
    picture = studio.get(f"/api/production/images/{found['foreign'][0]['id']}")
    assert picture.headers["content-type"] == "image/webp"


@pytest.mark.integration
@pytest.mark.parametrize("name", ["0" * 64, "..%2f..%2fparams.yaml", "%2e%2e"])
def test_only_images_of_the_journal_are_shown(finished, tmp_path, name):
    studio = open_studio(finished, journal=tmp_path)
    check_problem(studio.get(f"/api/production/images/{name}"), 404, "not-found")
