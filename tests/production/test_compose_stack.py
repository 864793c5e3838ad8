"""The whole stack, run natively as in docker-compose.yml, and broken piece by piece."""

import base64
import json
import os
import re
import shutil
import ssl
import textwrap
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.bundles import tiny_backbone, tiny_bundle
from tests.production.composefile import ROOT
from tests.production.native import Container, Stack, give_to, until
from tests.projects import STAGES, Project

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

REGISTER = """
    import os
    from pathlib import Path
    from rootstock.integrations.mlflow.registry import MlflowRegistry
    from rootstock.integrations.mlflow.tracking import MlflowRunLogger
    uri = os.environ["MLFLOW_TRACKING_URI"]
    with MlflowRunLogger(uri, "rootstock").run("train") as run:
        run.log_metrics({"accuracy": 0.5})
    registry = MlflowRegistry(uri)
    entry = registry.register(
        "rootstock", Path("/workspace/model"), run_id=run.id, tags={}, description="d"
    )
    registry.set_alias("rootstock", "champion", entry.version)
    print("version", entry.version)
"""
STEAL = """
    from mlflow import MlflowClient
    MlflowClient().set_registered_model_alias("rootstock", "champion", "1")
"""
KNOCK = """
    import http.client, json, re
    from mlflow.server import app as flask_app
    from mlflow.server.fastapi_app import create_fastapi_app
    doors = {(method, re.sub(r"<[^>]*>", "1", rule.rule))
             for rule in flask_app.url_map.iter_rules() for method in rule.methods}
    def walk(routes):
        for route in routes:
            if hasattr(route, "methods"):
                path = re.sub(r"{[^}]*}", "1", route.path)
                yield from ((method, path) for method in route.methods)
            elif hasattr(route, "routes"):
                yield from walk(route.routes or [])
    doors |= set(walk(create_fastapi_app(flask_app).routes))
    connection, answers = http.client.HTTPConnection("mlflow", 5000, timeout=20), {}
    for method, path in sorted(doors):
        if method not in ("HEAD", "OPTIONS"):
            connection.request(method, path, body=b"{}" if method != "GET" else None,
                               headers={"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status not in (401, 403):
                answers[f"{method} {path}"] = answer.status
    print(json.dumps([len(doors), answers]))
"""
# Routes that MLflow answers for everyone.
HARMLESS = {
    "GET /health": 200,
    "GET /api/3.0/mlflow/server-info": 200,
    "GET /ajax-api/3.0/mlflow/server-info": 200,
    "GET /static-files/1": 404,
}
WORK = """
    import ray
    ray.init(log_to_driver=False)
    @ray.remote(num_cpus=1)
    def where():
        return ray.util.get_node_ip_address()
    print("ran on", *set(ray.get([where.remote() for _ in range(4)])))
"""
LOSE = """
    from mlflow import MlflowClient
    client = MlflowClient()
    run = client.get_model_version_by_alias("rootstock", "champion").run_id
    client.delete_registered_model("rootstock")
    client.delete_run(run)
    print("gone")
"""
FETCH = """
    import os
    from pathlib import Path
    from rootstock.integrations.mlflow.registry import MlflowRegistry
    registry = MlflowRegistry(os.environ["MLFLOW_TRACKING_URI"])
    champion = registry.find("rootstock", alias="champion")
    print(*os.listdir(registry.download(champion, Path("/tmp/fetched"))))
"""
TRACE = """
    import json
    from mlflow import MlflowClient
    client = MlflowClient()
    version = client.get_model_version_by_alias("piped", "champion")
    experiment = client.get_run(version.run_id).info.experiment_id
    print(json.dumps({
        "version": version.version, "described": version.description,
        "runs": [
            {"status": run.info.status,
             "points": max((len(client.get_metric_history(run.info.run_id, name))
                            for name in run.data.metrics), default=0)}
            for run in client.search_runs([experiment])
        ],
    }))
"""


def python(container: Container, code: str, *, seconds: float = 120, **environment: str):
    command = ["with-secrets", "python", "-c", textwrap.dedent(code)]
    return container.exec(command, seconds=seconds, **environment)


def register(stack: Stack, head: Container) -> str:
    """Register the tiny model from Ray's head, like the pipeline, and make it champion."""
    give_to(1000, Path(shutil.copytree(tiny_bundle(), stack.folder / "project/model")))
    done = python(head, REGISTER)
    assert "version 1" in done.stdout, done.stderr
    return "1"


@pytest.fixture(scope="module")
def stack(make_stack, needed) -> Stack:
    """PostgreSQL, MLflow on it with its users, and Ray with a worker."""
    needed("postgres", "psql", "initdb")
    return make_stack(RAY_OBJECT_STORE_BYTES="100000000", MLFLOW_WORKERS="1", WORKER_CPUS="1")


def started(stack, name):
    """The service, healthy."""
    container = stack.start(name)
    container.wait_until_healthy()
    return container


@pytest.fixture(scope="module")
def postgres(stack):
    return started(stack, "postgres")


@pytest.fixture(scope="module")
def mlflow(stack, postgres):
    return started(stack, "mlflow")


@pytest.fixture(scope="module")
def accounts(stack, mlflow):
    """Create the users twice: the second time changes nothing."""
    for number in (1, 2):
        one = stack.start("accounts", number=number)
        assert one.wait() == 0, one.tail()
        stack.running.remove(one)


@pytest.fixture(scope="module")
def head(stack, accounts):
    return started(stack, "ray-head")


@pytest.fixture(scope="module")
def worker(stack, head):
    return started(stack, "ray-worker")


@pytest.fixture(scope="module")
def commit(stack):
    """Return the commit of a project of 32 images in a folder that Ray's containers see."""
    root = stack.folder / "project"
    os.chown(root, 0, 0)  # git trusts only its user's folders
    project = Project(root)
    weights = Path(tiny_backbone().card.weights)
    shutil.copytree(weights.parent, root / "weights")
    project.set(weights=f"weights/{weights.name}", engine="ray", name="piped")
    project.commit()
    commit = project.run("git", "rev-parse", "HEAD").strip()
    give_to(1000, root)
    return commit


@pytest.fixture(scope="module")
def champion(stack, head):
    """The version of the tiny model that `register` made champion."""
    return register(stack, head)


def get(container: Container, url: str, secrets=None, user: str = "", **headers: str):
    """Return (status, body) of a GET inside a container's network."""
    if user:
        name = {"admin": "mlflow_admin_password"}.get(user, f"mlflow_{user}_password")
        pair = f"{user}:{(secrets[0] / name).read_text()}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    request = urllib.request.Request(url, headers=headers)

    def send():
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return container.inside(send)


def test_a_changed_password_fails_the_check_of_postgres(postgres):
    def become(password):
        done = postgres.exec(
            ["sh", "-c", f"psql -U mlflow mlflow -c \"alter role mlflow password '{password}'\""]
        )
        assert done.returncode == 0, done.stderr

    assert postgres.is_healthy()
    right = postgres.exec(["cat", "/run/secrets/postgres_password"]).stdout.strip()
    become("another")
    try:
        failed = postgres.check()
    finally:
        become(right)
    assert failed.returncode
    assert "password authentication failed" in failed.stderr
    assert postgres.is_healthy()


def test_mlflow_check_fails_without_allowed_hosts(stack, mlflow):
    """/health answers 200 to everyone; the file's check shows the answers that clients get."""
    second = stack.start("mlflow", number=2, without="MLFLOW_SERVER_ALLOWED_HOSTS")
    try:
        # Its name must resolve to itself, as with a single MLflow.
        stack.running.remove(mlflow)
        end = time.monotonic() + 120
        while True:
            try:
                status, _ = get(second, "http://127.0.0.1:5000/health", Host="mlflow:5000")
                break
            except OSError:
                assert time.monotonic() < end, second.tail()
                time.sleep(1)
        assert status == 200
        failed = second.check()
        assert failed.returncode == 1
        assert "status 403: Invalid Host header" in failed.stderr
    finally:
        stack.running.append(mlflow)
        stack.stop(second, kill=True)
    assert mlflow.is_healthy()


def test_unreadable_artifacts_fail_mlflow_check(stack, mlflow):
    folder = stack.volume("mlflow-artifacts")
    folder.chmod(0)
    try:
        failed = mlflow.check()
    finally:
        folder.chmod(0o700)
    assert failed.returncode == 1
    assert "mlflow-artifacts" in failed.stderr
    assert mlflow.is_healthy()


def test_the_users_may_ask_mlflow(mlflow, accounts, secrets):
    url = "http://127.0.0.1:5000/api/2.0/mlflow/experiments/search?max_results=1"
    assert get(mlflow, url, Host="mlflow:5000")[0] == 401
    for user in ("admin", "service", "pipeline"):
        assert get(mlflow, url, secrets, user, Host="mlflow:5000")[0] == 200


def test_no_route_of_mlflow_answers_without_a_password(mlflow):
    """Return every route that MLflow declares, in each of its methods, called without login."""
    done = mlflow.exec(["python", "-c", textwrap.dedent(KNOCK)], seconds=400)
    asked, answers = json.loads(done.stdout.splitlines()[-1])
    assert asked > 100, done.stderr
    assert answers == HARMLESS


def test_ray_runs_task_on_worker_with_token(head, worker):
    done = python(head, WORK)
    assert f"ran on {worker.addresses['cluster']}" in done.stdout, done.stderr


def test_pipeline_trains_on_worker_and_registers_at_mlflow(head, worker, commit):
    """Run `dvc repro` as in docs/guides/deployment.md; the head offers no processor."""
    ran = head.exec(["with-secrets", "dvc", "repro"], seconds=400)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    assert all(f"Running stage '{stage}'" in ran.stdout for stage in STAGES)
    told = python(head, TRACE)
    found = json.loads(told.stdout.splitlines()[-1])
    assert found["version"] == "1"
    assert found["described"].startswith("#")
    assert {run["status"] for run in found["runs"]} == {"FINISHED"}
    assert commit in found["described"]
    again = head.exec(["with-secrets", "dvc", "repro"])
    assert "Data and pipelines are up to date" in again.stdout, again.stdout + again.stderr


def test_registered_version_is_made_again_bit_for_bit(head, worker, commit):
    """Run on the stack, with only the version's number."""
    command = ["with-secrets", "rootstock", "reproduce", "1", "--run", "--folder", "again"]
    done = head.exec(command, seconds=400)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for what in ("data hash", "plan hash", "weights, byte for byte"):
        assert f"{what}: the same" in done.stdout


def test_ray_rejects_clients_without_a_token(worker):
    done = worker.exec(worker.spec["healthcheck"]["test"][1:], RAY_AUTH_TOKEN_PATH="/etc/passwd")
    assert done.returncode
    assert "InvalidAuthToken" in done.stderr


def test_head_does_not_list_a_dead_worker(stack, head, worker):
    second = stack.start("ray-worker", number=2)
    second.wait_until_healthy()
    # Ray's process dies; the container's first process does not.
    done = second.exec(["pkill", "-KILL", "raylet"])
    assert done.returncode == 0
    until(lambda: second.check().returncode, 60)
    assert worker.is_healthy()
    stack.stop(second, kill=True)


def test_service_follows_champion_and_may_not_move_it(stack, champion, secrets):
    replica = stack.start("inference")
    replica.wait_until_healthy()
    key = {"X-API-Key": secrets[1]["predict"]}
    status, body = get(replica, "http://127.0.0.1:8000/v1/model", **key)
    assert (status, json.loads(body)["version"]) == (200, champion)
    done = python(replica, STEAL)
    assert done.returncode
    assert "403" in done.stderr or "Permission denied" in done.stderr
    stack.stop(replica)


def test_a_service_without_a_champion_is_not_healthy(stack, accounts):
    spec = stack.compose["services"]["inference"]["environment"]
    before, spec["ROOTSTOCK_MODEL"] = spec["ROOTSTOCK_MODEL"], "models:/nothing@champion"
    replica = stack.start("inference", number=5)
    spec["ROOTSTOCK_MODEL"] = before
    end = time.monotonic() + 60
    while "503" not in (failed := replica.check()).stderr:
        assert failed.returncode
        assert time.monotonic() < end, replica.tail()
        time.sleep(1)
    stack.stop(replica, kill=True)


def test_the_proxy_leads_browsers_to_mlflow(stack, accounts, secrets, needed):
    needed("caddy")
    proxy = stack.start("proxy")
    authority = stack.volume("proxy") / "caddy/pki/authorities/local/root.crt"
    end = time.monotonic() + 30
    while not authority.exists():
        assert time.monotonic() < end, proxy.tail()
        time.sleep(0.2)
    trust = ssl.create_default_context(cafile=str(authority))
    pair = f"admin:{(secrets[0] / 'mlflow_admin_password').read_text()}"
    right = f"Basic {base64.b64encode(pair.encode()).decode()}"

    def create(origin, authorization):
        request = urllib.request.Request(
            "https://localhost:8444/api/2.0/mlflow/experiments/create",
            data=json.dumps({"name": f"by {origin}"}).encode(),
            headers={
                "Origin": origin,
                "Authorization": authorization,
                "Content-Type": "application/json",
            },
        )

        def send():
            try:
                return urllib.request.urlopen(request, timeout=20, context=trust).status
            except urllib.error.HTTPError as error:
                return error.code

        return proxy.inside(send)

    assert create("https://localhost:8444", right) == 200
    assert create("https://localhost:8444", "Basic YWRtaW46cGFzc3dvcmQxMjM0") == 401
    assert create("https://elsewhere.example", right) == 403
    stack.stop(proxy, kill=True)


def test_training_outlives_a_restart_of_postgres(stack, head, worker, mlflow, commit):
    """Stopped for ten seconds during a trial, which still ends well with complete runs."""
    log = stack.folder / "project/repro.log"
    line = "dvc repro --single-item --force train > repro.log 2>&1"
    (postgres,) = [c for c in stack.running if c.service == "postgres"]
    running = "psql -U mlflow mlflow -tAc \"select count(*) from runs where status = 'RUNNING'\""
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(head.exec, ["with-secrets", "sh", "-c", line], seconds=400)
        until(lambda: postgres.exec(["sh", "-c", running]).stdout.strip() not in ("", "0"), 120)
        stack.stop(postgres, kill=True)
        time.sleep(10)
        assert not ended.done(), "it ended before the database had gone"
        stack.start("postgres", number=3).wait_until_healthy()
        done = ended.result()
    assert done.returncode == 0, log.read_text()
    until(lambda: mlflow.check().returncode == 0, 120)
    told = python(head, TRACE)
    runs = json.loads(told.stdout.splitlines()[-1])["runs"]
    assert {run["status"] for run in runs} == {"FINISHED"}
    assert all(run["points"] == 1 for run in runs if run["points"])


def test_the_registry_is_restored_by_the_documented_commands(stack, mlflow, head, champion):
    """Dumped, lost, and restored with docs/explanation/registry.md, except for stop and start."""
    (postgres,) = [c for c in stack.running if c.service == "postgres"]
    text = (ROOT / "docs/explanation/registry.md").read_text(encoding="utf-8")
    lines = re.findall(r"^docker compose exec -T (\w+) (.+?) [<>] (\S+)$", text, flags=re.MULTILINE)
    assert [file for _, _, file in lines] == [
        *("mlflow.dump", "artifacts.tar"),
        *("artifacts.tar", "mlflow.dump"),
    ]
    for number, (service, command, file) in enumerate(lines):
        if number == 2:
            assert "gone" in python(head, LOSE).stdout
            assert mlflow.exec(["sh", "-c", "rm -r /var/lib/mlflow/artifacts/*"]).returncode == 0
        sign = ">" if number < 2 else "<"
        container = {"postgres": postgres, "mlflow": mlflow}[service]
        done = container.exec(["sh", "-c", f"{command} {sign} /tmp/{file}"])
        assert done.returncode == 0, done.stderr
    fetched = python(head, FETCH)
    assert "model.onnx" in fetched.stdout, fetched.stderr


def test_mlflow_fails_its_check_without_postgres_and_recovers(stack, mlflow, champion):
    """Runs last, because it stops the database."""
    (postgres,) = [c for c in stack.running if c.service == "postgres"]
    stack.stop(postgres, kill=True)
    assert not mlflow.is_healthy()
    again = stack.start("postgres", number=2)
    again.wait_until_healthy()
    end = time.monotonic() + 60
    while mlflow.check().returncode:
        assert time.monotonic() < end, mlflow.tail()
        time.sleep(1)
    assert os.path.isdir(stack.volume("postgres"))
