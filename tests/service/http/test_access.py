"""Who may ask, how often, and how much: keys, rates, bodies, headers, ids."""

import asyncio
import io
import json
import logging

import pytest

from rootstock.errors import ConfigError
from rootstock.service.http.access import BodyLimit
from rootstock.service.http.keys import KeyRing, RateLimit, make_key
from rootstock.service.http.problems import Problem
from rootstock.service.watch.logs import JsonFormatter, request_id
from tests.bundles import jpeg
from tests.service.conftest import make_client
from tests.service.http.test_routes import check_problem, post_files


@pytest.fixture
def keys(tmp_path):
    """A file with two askers and an admin; (path, the three keys)."""
    path = tmp_path / "keys.txt"
    return path, [
        make_key(name, role, path)
        for name, role in (("shop", "predict"), ("app", "predict"), ("ops", "admin"))
    ]


def test_a_file_of_keys_holds_no_key(keys):
    path, made = keys
    assert path.stat().st_mode & 0o777 == 0o600
    assert not any(key in path.read_text() for key in made)
    assert KeyRing.read(path).find(made[0]).name == "shop"
    assert KeyRing.read(path).find(made[0] + "x") is None


def test_a_name_is_given_once(keys):
    with pytest.raises(ConfigError, match="has a key of the name 'shop' already"):
        make_key("shop", "admin", keys[0])


@pytest.mark.parametrize("line", ["shop", "shop predict abc", f"shop boss {'0' * 64}"])
def test_a_wrong_line_is_named(tmp_path, line):
    (tmp_path / "keys").write_text(f"# ours\n{line}\n")
    with pytest.raises(ConfigError, match="line 2 is not NAME ROLE SHA256"):
        KeyRing.read(tmp_path / "keys")


def test_a_missing_file_of_keys_ends_the_start(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        make_client(keys=tmp_path / "none")


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
def test_a_file_without_a_clients_key_lets_nobody_in(tmp_path, roles):
    """Taking out the last line must not open the door."""
    path = tmp_path / "keys.txt"
    path.touch()
    shown = [make_key("ops", role, path) for role in roles]
    with make_client(keys=path) as client:
        check_problem(client.get("/v1/model"), 401, "unauthorized")
        for key in shown:
            assert client.get("/v1/model", headers={"X-API-Key": key}).status_code == 200


def test_a_token_for_a_proxy_does_not_hide_the_key(keys):
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
    # Without any admin key nobody may
    check_problem(client.post("/admin/reload"), 403, "forbidden")


def test_an_operator_is_not_held_up(keys):
    path, (_, _, ops) = keys
    with make_client(keys=path, rate_per_second=0.01, rate_burst=1) as client:
        codes = [
            client.post("/admin/reload", headers={"X-API-Key": ops}).status_code for _ in "123"
        ]
    assert codes == [200] * 3


def test_each_caller_has_a_rate_of_its_own(keys):
    path, (shop, app, _) = keys
    with make_client(keys=path, rate_per_second=0.01, rate_burst=2) as client:
        codes = [
            client.post("/v1/predict", files={"files": jpeg(0)}, headers={"X-API-Key": key})
            for key in (shop, shop, shop, app)
        ]
    assert [answer.status_code for answer in codes] == [200, 200, 429, 200]
    check_problem(codes[2], 429, "too-many-requests")
    assert 90 <= int(codes[2].headers["retry-after"]) <= 100


def test_a_bucket_fills_again(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("rootstock.service.http.keys.time.monotonic", lambda: now[0])
    limit = RateLimit(2.0, 1)
    assert limit.wait("a") == 0
    assert limit.wait("a") == pytest.approx(0.5)
    now[0] = 0.5
    assert limit.wait("a") == 0


def drained(limit, messages, method="POST"):
    """What a body's reader sees of ``messages`` through a BodyLimit."""

    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass

    async def run():
        waiting = list(messages)

        async def receive():
            if not waiting:
                await asyncio.sleep(60)
            return waiting.pop(0)

        limit.app = app
        scope = {"type": "http", "method": method, "headers": []}
        await limit(scope, receive, None)

    asyncio.run(run())


def part(size, *, more=True):
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


def test_a_body_that_dribbles_is_given_up():
    limit = BodyLimit(None, max_bytes=1_000, max_buffered=10_000, seconds=0.1)
    with pytest.raises(Problem) as caught:
        drained(limit, [part(10)])
    assert caught.value.kind == "too-slow"
    assert limit.buffered == 0


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_a_body_is_bounded_whatever_the_method(method):
    limit = BodyLimit(None, max_bytes=1_000, max_buffered=10_000, seconds=5)
    with pytest.raises(Problem) as caught:
        drained(limit, [part(900), part(900)], method)
    assert caught.value.kind == "too-large"


def test_bodies_together_have_a_limit_too():
    limit = BodyLimit(None, max_bytes=1_000, max_buffered=1_500, seconds=5)
    limit.buffered = 1_000  # of others
    with pytest.raises(Problem) as caught:
        drained(limit, [part(400), part(400, more=False)])
    assert caught.value.kind == "overloaded"
    assert limit.buffered == 1_000


@pytest.mark.parametrize(
    ("shown", "kept"), [("order-17", True), ("two words", False), ("x" * 200, False)]
)
def test_a_harmless_request_id_is_kept(client, shown, kept):
    found = client.get("/healthz", headers={"X-Request-ID": shown}).headers["x-request-id"]
    assert (found == shown) == kept
    assert 1 <= len(found) <= 128


@pytest.mark.parametrize("path", ["/", "/v1/model", "/nowhere", "/metrics"])
def test_every_answer_carries_the_security_headers(client, path):
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


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


def test_a_request_is_logged_once_with_its_caller(keys, caplog):
    path, (shop, *_) = keys
    with make_client(keys=path) as client, caplog.at_level("INFO", "rootstock.access"):
        client.post("/v1/predict", files={"files": jpeg(0)}, headers={"X-API-Key": shop})
        client.get("/healthz")
    (record,) = [r for r in caplog.records if r.name == "rootstock.access"]
    assert record.caller == "key shop"
    assert record.status == 200
    assert shop not in caplog.text


def test_an_answer_that_comes_too_late_is_given_up(monkeypatch):
    async def slow(self, predictor, content):
        await asyncio.sleep(30)

    monkeypatch.setattr("rootstock.service.inference.decoder.DecodePool.prepare", slow)
    with make_client(deadline_seconds=0.2) as client:
        response = post_files(client, ("a", jpeg(0)))
        assert client.app.state.service.in_flight == 0
    check_problem(response, 503, "too-late")
    assert int(response.headers["retry-after"]) >= 1
