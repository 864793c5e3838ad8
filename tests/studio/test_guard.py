"""Access control: names, origins, tokens, keys, and roles."""

import socket

import httpx
import pytest

from rootstock.service.http.keys import make_key
from rootstock.studio.app import create_studio
from rootstock.studio.guard import TOKEN_HEADER
from rootstock.studio.settings import StudioSettings
from tests.service.requests import check_problem
from tests.studio.conftest import open_studio, running

pytestmark = pytest.mark.integration
PAGES = ["/", "/api/session", "/api/images", "/static/js/main.js"]
FOREIGN = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8100", "127.0.0.1.evil.example"])
def test_foreign_host_name_is_rejected(client, page, host):
    """DNS rebinding: a page of another site makes its name point here."""
    check_problem(client.get(page, headers={"Host": host}), 403, "forbidden")


@pytest.mark.parametrize("host", ["localhost:8100", "127.0.0.1:8100", "[::1]:8100", "LOCALHOST"])
def test_names_of_this_machine_are_accepted(client, host):
    assert client.get("/api/session", headers={"Host": host}).status_code == 200


def test_further_name_is_served_if_it_is_given(finished):
    client = open_studio(finished, hosts="studio.example:8446")
    headers = {"Host": "studio.example:8446", "Origin": "https://studio.example:8446"}
    assert client.get("/api/session", headers=headers).status_code == 200


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_another_origin_reads_nothing(client, page):
    check_problem(client.get(page, headers={"Origin": "https://evil.example"}), 403, "forbidden")
    check_problem(client.get(page, headers=FOREIGN), 403, "forbidden")
    same_site = FOREIGN | {"Sec-Fetch-Site": "same-site"}  # another port of this machine
    check_problem(client.get(page, headers=same_site), 403, "forbidden")


def test_link_on_another_page_leads_to_studio(client):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=headers).status_code == 200
    check_problem(client.post("/api/session", headers=headers), 403, "forbidden")


@pytest.mark.parametrize("token", ["", "0" * 64])
def test_a_change_needs_the_token_of_the_page(client, token):
    answer = client.request("DELETE", "/api/session", headers={TOKEN_HEADER: token})
    check_problem(answer, 403, "forbidden")


def test_the_token_of_another_studio_is_rejected(client, finished):
    other = open_studio(finished).headers[TOKEN_HEADER]
    answer = client.request("DELETE", "/api/session", headers={TOKEN_HEADER: other})
    check_problem(answer, 403, "forbidden")


@pytest.mark.parametrize("page", [*PAGES, "/nothing"])
def test_every_answer_keeps_the_browser_strict(client, page):
    headers = client.get(page).headers
    policy = headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "name",
    ["..%2f..%2fparams.yaml", "%2e%2e/%2e%2e/params.yaml", "....//params.yaml", "a" * 64, "A" * 64],
)
@pytest.mark.parametrize("kind", ["", "/thumbnail", "/picture"])
def test_images_are_addressed_by_their_hash_only(client, name, kind):
    assert client.get(f"/api/images/{name}{kind}").status_code == 404


@pytest.mark.parametrize("name", ["../app.py", "..%2fapp.py", "js/../../guard.py", "/etc/passwd"])
def test_static_files_are_those_of_the_package_only(client, name):
    assert client.get(f"/static/{name}").status_code == 404


@pytest.fixture
def keys(tmp_path):
    file = tmp_path / "keys"
    return file, {role: make_key(role, role, file) for role in ("predict", "admin")}


def test_with_keys_nothing_is_read_before_the_login(finished, keys):
    client = open_studio(finished, keys=keys[0])
    assert "project" not in client.get("/api/session").json()
    check_problem(client.get("/api/images"), 401, "unauthorized")
    check_problem(client.post("/api/session", json={"key": "rsk_wrong"}), 401, "unauthorized")


def test_a_key_opens_a_session_for_its_role(finished, keys):
    client = open_studio(finished, keys=keys[0])
    answer = client.post("/api/session", json={"key": keys[1]["predict"]})
    assert answer.json()["role"] == "predict"
    cookie = answer.headers["Set-Cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/api/images").status_code == 200
    # The token of the visitor no longer counts.
    check_problem(client.request("DELETE", "/api/session"), 403, "forbidden")
    client.headers[TOKEN_HEADER] = answer.json()["token"]
    assert client.request("DELETE", "/api/session").status_code == 200
    check_problem(client.get("/api/images"), 401, "unauthorized")


def test_other_machines_need_a_key(finished):
    with pytest.raises(ValueError, match="can be reached from other machines: set a key file"):
        StudioSettings(project=finished, host="0.0.0.0")


def test_folder_that_is_not_project_is_rejected(tmp_path):
    with pytest.raises(Exception, match="has neither params.yaml nor artifacts/manifest.parquet"):
        create_studio(StudioSettings(project=tmp_path))


def test_a_body_that_is_too_long_is_rejected(client):
    check_problem(client.post("/api/session", content=b"0" * 1_100_000), 413, "too-large")


@pytest.mark.parametrize("size", [1_100_000, 40_000_000])
def test_proxy_that_sends_a_long_body_first_gets_the_answer(finished, size):
    with running(finished) as address:
        token = httpx.get(f"{address}api/session").json()["token"]
        host = address.removeprefix("http://").rstrip("/")
        name, _, port = host.partition(":")
        head = {"Host": host, TOKEN_HEADER: token, "Content-Length": size, "Connection": "close"}
        lines = ["POST /api/session HTTP/1.1", *(f"{key}: {value}" for key, value in head.items())]
        for _ in range(5):
            with socket.create_connection((name, int(port)), timeout=20) as wire:
                wire.sendall("\r\n".join([*lines, "", ""]).encode() + b"0" * size)
                answer = b"".join(iter(lambda: wire.recv(65_536), b""))  # noqa: B023
            assert answer.startswith(b"HTTP/1.1 413")


def test_every_route_has_a_declared_access(client):
    access = client.app.guard.access
    access.require_all([route for route in client.app.routes if hasattr(route, "methods")])
    assert access.resolve("/api/images") == "predict"
    assert access.resolve("/api/nothing") == "predict"
    assert access.resolve("/static/js/main.js") == "open"
