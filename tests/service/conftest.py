"""A service with the tiny bundle; requests go through the whole app, without a socket."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from rootstock.model.predictor import Predictor
from rootstock.service.http.app import create_app, make_holder
from rootstock.service.http.keys import make_key
from rootstock.service.settings import Settings
from tests.bundles import tiny_bundle


def make_client(**chosen: object) -> TestClient:
    """A client of a service whose model is loaded."""
    settings = Settings(**{"model": str(tiny_bundle()), "decoders": 1, "lanes": 1} | chosen)
    holder = make_holder(settings)
    holder.load()
    return TestClient(create_app(settings, holder=holder))


@pytest.fixture(scope="session")
def client() -> Iterator[TestClient]:
    with make_client(max_body_bytes=2_000_000, max_images=4) as client:
        yield client


@pytest.fixture
def empty_client(tmp_path) -> Iterator[TestClient]:
    """A client of a service that never gets a model."""
    settings = Settings(model=str(tmp_path / "none"), retry_seconds=60)
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    return Predictor(tiny_bundle(), threads=1)


@pytest.fixture
def keys(tmp_path):
    """A file with two clients and an admin; (path, the three keys)."""
    path = tmp_path / "keys.txt"
    return path, [
        make_key(name, role, path)
        for name, role in (("shop", "predict"), ("app", "predict"), ("ops", "admin"))
    ]
