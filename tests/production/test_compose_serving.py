"""The public part, run natively as in docker-compose.yml: replicas, proxy, monitoring."""

import json
import re
import signal
import ssl
import subprocess
import time
import urllib.request

import httpx
import pytest

from tests.bundles import jpeg
from tests.production.conftest import put_model

pytestmark = [pytest.mark.integration, pytest.mark.slow]
BODIES_RETRIED = (2, 11, 2)
READY = ("GET", "/v1/model", {})
IMAGE = {"content": jpeg(0), "headers": {"content-type": "image/jpeg"}}


@pytest.fixture(scope="module")
def stack(make_stack, needed):
    """Two replicas with a model from their volumes, behind the proxy."""
    needed("caddy", "wget")
    stack = make_stack(ROOTSTOCK_MODEL="/var/lib/rootstock/model")
    replicas = []
    for number in (1, 2):
        put_model(stack, number)
        replicas.append(stack.start("inference", number=number))
    stack.proxy = stack.start("proxy")
    for container in (*replicas, stack.proxy):
        container.wait_until_healthy()
    return stack


@pytest.fixture(scope="module")
def ask(stack, secrets):
    """Send a request from outside: to the proxy, by TLS, trusting its authority, with a key."""
    authority = stack.volume("proxy") / "caddy/pki/authorities/local/root.crt"
    trust = ssl.create_default_context(cafile=str(authority))

    def send(method, path, *, key=secrets[1]["predict"], port=8443, headers=None, **content):
        headers = {"X-API-Key": key} | (headers or {})
        return stack.proxy.inside(
            lambda: httpx.request(
                method,
                f"https://localhost:{port}{path}",
                headers=headers,
                verify=trust,
                timeout=20,
                **content,
            )
        )

    return send


def proxy_version():
    printed = subprocess.run(["caddy", "version"], capture_output=True, text=True).stdout
    return tuple(int(part) for part in re.findall(r"\d+", printed)[:3])


def test_images_are_classified_by_tls_with_a_key(ask):
    answer = ask("POST", "/v1/predict", **IMAGE)
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["top"]


def test_requests_without_a_key_are_rejected(ask):
    assert ask("POST", "/v1/predict", key="rsk_wrong", **IMAGE).status_code == 401


def test_metrics_and_administration_stay_inside(ask, secrets):
    for path in ("/metrics", "/admin/reload", "/admin"):
        assert ask("POST", path, key=secrets[1]["admin"]).status_code == 404


def test_a_body_that_is_too_long_is_rejected(ask):
    long = {**IMAGE, "content": b"x" * 70_000_000}
    assert ask("POST", "/v1/predict", **long).status_code == 413


def test_a_strangers_host_name_is_not_served(stack):
    def send():
        with httpx.Client(verify=False, base_url="https://127.0.0.1:8443") as client:
            return client.get("/healthz")

    with pytest.raises(httpx.ConnectError, match=r"(?i)ssl|tls"):
        stack.proxy.inside(send)


def test_names_are_known_on_shared_networks_only(stack):
    lookup = ["python", "-c", "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"]
    replica = stack.running[0]
    assert replica.exec([*lookup, "inference"]).returncode == 0
    assert "10.77." in stack.proxy.exec([*lookup, "inference"]).stdout
    for name in ("postgres", "ray-head", "grafana"):
        assert replica.exec([*lookup, name]).returncode


def test_services_have_no_privileges_or_writable_disk(stack):
    for container in stack.running:
        status = container.exec(["cat", "/proc/self/status"]).stdout
        for word in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"):
            assert word in status
        assert container.exec(["id", "-u"]).stdout.strip() == container.spec["user"].split(":")[0]
        touched = container.exec(["touch", "/opt/rootstock/x", "/etc/x", "/x"])
        assert touched.stderr.count("touch: cannot") == 3
        assert container.exec(["touch", "/tmp/x"]).returncode == 0


def test_draining_replica_loses_no_request(stack, ask):
    # An older proxy answers 502 to a request with a body after a refused connection.
    body = ("POST", "/v1/predict", IMAGE)
    method, path, content = body if proxy_version() >= BODIES_RETRIED else READY
    put_model(stack, 3)
    leaving = stack.start("inference", number=3)
    leaving.wait_until_healthy()
    answers = [ask("GET", "/readyz").status_code for _ in range(5)]
    leaving.send(signal.SIGTERM)
    time.sleep(0.5)
    failed = leaving.check()
    assert failed.returncode
    assert "503" in failed.stderr
    while leaving.init.poll() is None:
        answers.append(ask(method, path, **content).status_code)
    stack.running.remove(leaving)
    answers += [ask(method, path, **content).status_code for _ in range(20)]
    time.sleep(3)  # by now the proxy no longer uses the third address
    answers += [ask("POST", "/v1/predict", **IMAGE).status_code for _ in range(20)]
    assert set(answers) == {200}, stack.proxy.tail()


def test_service_exits_if_secrets_are_missing(stack):
    spec = stack.compose["services"]["inference"]
    secrets, spec["secrets"] = spec["secrets"], ["api_keys"]
    try:
        broken = stack.start("inference", number=4)
    finally:
        spec["secrets"] = secrets
    assert broken.wait(20) == 1
    assert "MLFLOW_TRACKING_PASSWORD__FILE names /run/secrets/mlflow_service_password" in (
        broken.tail()
    )
    stack.running.remove(broken)


@pytest.fixture(scope="module")
def prometheus(stack, needed):
    needed("prometheus")
    prometheus = stack.start("prometheus")
    prometheus.wait_until_healthy()
    return prometheus


def query(prometheus, expression):
    url = f"http://127.0.0.1:9090/api/v1/query?query={expression}"
    answer = prometheus.inside(lambda: urllib.request.urlopen(url, timeout=5).read())
    return json.loads(answer)["data"]["result"]


def test_prometheus_finds_every_replica_and_its_model(prometheus):
    end = time.monotonic() + 60
    while len(query(prometheus, "rootstock_ready")) < 2:
        assert time.monotonic() < end, prometheus.tail()
        time.sleep(1)
    assert {row["value"][1] for row in query(prometheus, "rootstock_ready")} == {"1"}
    assert len(query(prometheus, "rootstock_model_info")) == 2


def test_prometheus_that_hangs_fails_its_check(prometheus):
    prometheus.send(signal.SIGSTOP)
    try:
        assert not prometheus.is_healthy()
    finally:
        prometheus.send(signal.SIGCONT)
    assert prometheus.is_healthy()


def test_proxy_check_fails_without_replicas(stack, ask):
    one, other = [c for c in stack.running if c.service == "inference"]
    stack.stop(one, kill=True)
    # A request on an existing connection may fail once; then the other replica answers.
    answers = [ask("POST", "/v1/predict", **IMAGE).status_code for _ in range(10)]
    assert answers.count(200) >= 9
    assert stack.proxy.is_healthy()
    stack.stop(other, kill=True)
    assert not stack.proxy.is_healthy()
