"""Pages from other origins: only those in the setting may use the service."""

import pytest
from pydantic import ValidationError

from rootstock.service.settings import Settings
from tests.bundles import jpeg
from tests.service.conftest import make_client

SHOP, OTHER = "https://shop.example:8443", "https://shop.example"


def ask_before(client, origin):
    """A browser's preflight before a request with a key."""
    return client.options(
        "/v1/predict",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-api-key",
        },
    )


def test_no_other_origin_is_allowed_by_default(client):
    for answer in (ask_before(client, SHOP), client.get("/healthz", headers={"Origin": SHOP})):
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_origins_of_setting_are_allowed_and_no_other(keys):
    path, (shop, *_) = keys
    with make_client(cors_origins=f"http://localhost:3000, {SHOP}", keys=path) as client:
        allowed = ask_before(client, SHOP)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == SHOP
        assert "x-api-key" in allowed.headers["access-control-allow-headers"].lower()
        for origin in (OTHER, "https://shop.example:8443.evil.example", "null"):
            assert "access-control-allow-origin" not in ask_before(client, origin).headers
        answers = {
            key: client.post(
                "/v1/predict", files={"files": jpeg(0)}, headers={"Origin": SHOP, "X-API-Key": key}
            )
            for key in (shop, "wrong")
        }
        assert [answer.status_code for answer in answers.values()] == [200, 401]
        for answer in answers.values():  # a page must be able to read why it is rejected
            assert answer.headers["access-control-allow-origin"] == SHOP
            assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("text", ["*", "shop.example", "https://shop.example/", "file://x", "null"])
def test_what_is_not_an_origin_is_rejected(text):
    with pytest.raises(ValidationError, match="is not an origin"):
        Settings(cors_origins=text)
