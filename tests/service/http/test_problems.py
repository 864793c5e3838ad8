"""Problems that are not about images."""

import pytest
from fastapi.testclient import TestClient

from tests.bundles import jpeg
from tests.service.conftest import make_client
from tests.service.requests import check_problem


def test_an_unknown_address_is_a_404(client):
    check_problem(client.get("/nowhere"), 404, "not-found")


def test_wrong_method_is_405_that_names_right_one(client):
    response = client.get("/v1/predict")
    assert "POST" in check_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "where",
    [
        "rootstock.model.predictor.Predictor.infer",
        "rootstock.service.http.routes.choose_model",
        "rootstock.service.http.keys.RateLimit.wait",  # before FastAPI gets the request
    ],
)
def test_a_failure_reveals_nothing_of_the_inside(monkeypatch, where):
    def explode(*args, **kwargs):
        raise RuntimeError("secret path /home/x")

    with TestClient(make_client().app, raise_server_exceptions=False) as quiet:
        monkeypatch.setattr(where, explode)
        response = quiet.post("/v1/predict", files={"files": ("a.jpg", jpeg(0))})
    assert "secret" not in check_problem(response, 500, "internal")
