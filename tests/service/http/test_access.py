"""Access control: the declared access of every route, and the guard that enforces it."""

import itertools

import pytest
from fastapi import APIRouter
from fastapi.testclient import TestClient

from rootstock.service.http.access import AccessTable, Router
from rootstock.service.http.keys import make_key
from tests.bundles import jpeg
from tests.service.conftest import make_client
from tests.service.requests import check_problem

ROUTES = {
    "/": "open",
    "/docs": "open",
    "/openapi.json": "open",
    "/healthz": "open",
    "/readyz": "open",
    "/ping": "open",
    "/metrics": "open",
    "/v2/health/live": "open",
    "/v2/health/ready": "open",
    "/v1/predict": "predict",
    "/v1/embeddings": "predict",
    "/v1/explain": "predict",
    "/v1/similar": "predict",
    "/v1/model": "predict",
    "/v1/drift": "predict",
    "/v1/feedback": "predict",
    "/v1/challenger": "predict",
    "/v2": "predict",
    "/v2/": "predict",
    "/v2/repository/index": "predict",
    "/v2/models/stats": "predict",
    "/v2/models/{name}": "predict",
    "/v2/models/{name}/config": "predict",
    "/v2/models/{name}/stats": "predict",
    "/v2/models/{name}/ready": "predict",
    "/v2/models/{name}/infer": "predict",
    "/v2/models/{name}/versions/{version}": "predict",
    "/v2/models/{name}/versions/{version}/config": "predict",
    "/v2/models/{name}/versions/{version}/stats": "predict",
    "/v2/models/{name}/versions/{version}/ready": "predict",
    "/v2/models/{name}/versions/{version}/infer": "predict",
    "/invocations": "predict",
    "/admin/reload": "admin",
    "/admin/rollback": "admin",
    "/admin/pin": "admin",
    "/admin/unpin": "admin",
    "/v1/models": "predict",
    "/v1/models/{name}": "predict",
    "/v1/models/{name}/predict": "predict",
    "/v1/models/{name}/embeddings": "predict",
    "/v1/models/{name}/explain": "predict",
    "/v1/models/{name}/similar": "predict",
    "/v1/models/{name}/drift": "predict",
    "/v1/models/{name}/challenger": "predict",
    "/admin/models/{name}/reload": "admin",
    "/admin/models/{name}/rollback": "admin",
    "/admin/models/{name}/pin": "admin",
    "/admin/models/{name}/unpin": "admin",
}
OPEN_PREFIXES = (
    "/healthz",
    "/readyz",
    "/ping",
    "/metrics",
    "/v2/health/",
    "/docs",
    "/openapi.json",
)


def expected_access(path):
    """The contract for any address, with or without a route."""
    if path.startswith(OPEN_PREFIXES) or path == "/":
        return "open"
    return "admin" if path.startswith("/admin/") else "predict"


@pytest.fixture(scope="module")
def app():
    return make_client().app


def test_every_route_has_the_access_it_should(app):
    documented = set(app.openapi()["paths"])
    assert (
        set(app.access._routes)
        == set(ROUTES)
        == documented | {"/", "/docs", "/openapi.json", "/v2/"}
    )
    assert {path: app.access.of_route(path) for path in ROUTES} == ROUTES
    assert {path: app.access.resolve(path) for path in ROUTES} == ROUTES
    assert {path: expected_access(path) for path in ROUTES} == ROUTES


def test_addresses_without_a_route_are_guarded_too(app):
    words = ["", "x", ".", "..", "v1", "v2", "health", "live", "healthz", "admin", "reload", "pin"]
    words += ["docs", "openapi.json", "models", "infer", "metrics", "pingpong", "{name}", "ä"]
    for length in range(4):
        for parts in itertools.product(words, repeat=length):
            path = "/" + "/".join(parts)
            assert app.access.resolve(path) == expected_access(path), path
    for path in ("", "*", "healthz", "/admin/pin\n", "/healthz\n", "/\n", "/v2/health", "/admin"):
        assert app.access.resolve(path) == expected_access(path), path


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/readyz", 200),
        ("/readyz/", 404),
        ("/v2/health/none", 404),
        ("/nowhere", 401),
        ("/v1/model/", 401),
        ("/%761/model", 401),
        ("/admin", 401),
        ("/admin/reload", 403),
        ("/admin/none", 403),
        ("/%61dmin%2Freload", 403),
        ("//admin/reload", 401),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_any_method_is_guarded_before_routing(tmp_path, method, path, status):
    (tmp_path / "keys").touch()
    with make_client(keys=tmp_path / "keys") as client:
        answer = client.request(method, path)
    if status == 200 and method in ("POST", "OPTIONS"):
        status = 405
    assert answer.status_code == status


def test_stricter_access_of_two_routes_counts():
    table = AccessTable()
    table.declare("/jobs/{name}", "open")
    table.declare("/jobs/secret", "admin")
    table.declare("/jobs/{name}/log", "predict")
    assert table.resolve("/jobs/today") == "open"
    assert table.resolve("/jobs/secret") == "admin"
    assert table.resolve("/jobs/today/none") == "predict"


def test_a_router_without_a_declared_access_is_rejected():
    app, router = make_client().app, APIRouter(prefix="/hidden")
    router.get("/door")(lambda: "open")
    with pytest.raises(RuntimeError, match="/hidden/door.* declares no access"):
        app.include_router(router)


def add_to_the_app(app):
    app.get("/hidden/door")(lambda: "open")


def nest_a_router(app):
    outer, inner = Router("open"), APIRouter()
    inner.get("/hidden/door")(lambda: "open")
    app.include_router(outer)
    outer.include_router(inner)


@pytest.mark.parametrize("hide", [add_to_the_app, nest_a_router])
def test_app_with_route_without_access_does_not_start(hide):
    app = make_client().app
    hide(app)
    with pytest.raises(RuntimeError, match="no declared access"), TestClient(app):
        pass


def test_only_holders_of_a_key_may_ask(keys):
    path, (shop, _, ops) = keys
    with make_client(keys=path) as client:
        asked = {"files": ("a.jpg", jpeg(0))}
        refused = client.post("/v1/predict", files=asked)
        check_problem(refused, 401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"
        wrong = client.post("/v1/predict", files=asked, headers={"X-API-Key": "rsk_no"})
        check_problem(wrong, 401, "unauthorized")
        for headers in ({"X-API-Key": shop}, {"Authorization": f"Bearer {ops}"}):
            assert client.post("/v1/predict", files=asked, headers=headers).status_code == 200
        assert client.get("/v1/model").status_code == 401
        assert client.post("/v2/models/tiny/infer", json={}).json()["error"]
        for path in ("/healthz", "/readyz", "/metrics", "/", "/v2/health/live"):
            assert client.get(path).status_code == 200


@pytest.mark.parametrize("roles", [["admin"], []])
def test_file_without_client_keys_rejects_everyone(tmp_path, roles):
    """Removing the last line must not open the service."""
    path = tmp_path / "keys.txt"
    path.touch()
    shown = [make_key("ops", role, path) for role in roles]
    with make_client(keys=path) as client:
        check_problem(client.get("/v1/model"), 401, "unauthorized")
        for key in shown:
            assert client.get("/v1/model", headers={"X-API-Key": key}).status_code == 200


def test_token_for_proxy_does_not_hide_key(keys):
    path, (shop, _, _) = keys
    with make_client(keys=path) as client:
        headers = {"Authorization": "Bearer of another", "X-API-Key": shop}
        assert client.get("/v1/model", headers=headers).status_code == 200


def test_admin_work_needs_an_admins_key(keys, client):
    path, (shop, _, ops) = keys
    with make_client(keys=path) as guarded:
        check_problem(guarded.post("/admin/reload"), 401, "unauthorized")
        shown = guarded.post("/admin/reload", headers={"X-API-Key": shop})
        check_problem(shown, 403, "forbidden")
        done = guarded.post("/admin/reload", headers={"X-API-Key": ops})
        assert done.json()["changed"] is False
    # Without any admin key, admin requests are rejected
    check_problem(client.post("/admin/reload"), 403, "forbidden")


def test_an_operator_is_not_held_up(keys):
    path, (_, _, ops) = keys
    with make_client(keys=path, rate_per_second=0.01, rate_burst=1) as client:
        codes = [
            client.post("/admin/reload", headers={"X-API-Key": ops}).status_code for _ in "123"
        ]
    assert codes == [200] * 3


def test_each_caller_has_a_separate_rate(keys):
    path, (shop, app, _) = keys
    with make_client(keys=path, rate_per_second=0.01, rate_burst=2) as client:
        codes = [
            client.post("/v1/predict", files={"files": jpeg(0)}, headers={"X-API-Key": key})
            for key in (shop, shop, shop, app)
        ]
    assert [answer.status_code for answer in codes] == [200, 200, 429, 200]
    check_problem(codes[2], 429, "too-many-requests")
    assert 90 <= int(codes[2].headers["retry-after"]) <= 100
