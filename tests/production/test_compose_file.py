"""docker-compose.yml and its files: the specification's schema and our rules."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rootstock.service.watch.telemetry import Telemetry
from tests.production.composefile import (
    COMPOSE_FILE,
    ROOT,
    built_environment,
    read_compose,
    settings_of_the_file,
)

COMPOSE = read_compose()
SERVICES = COMPOSE["services"]
ONCE = {name for name, spec in SERVICES.items() if spec["restart"] == "no"}
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|PRIVATE|KEYS?(_|$)")
DASHBOARD = ROOT / "services/grafana/dashboards/rootstock.json"
RULES = ROOT / "services/prometheus/rules.yml"

each_service = pytest.mark.parametrize("name", sorted(SERVICES))


def test_the_file_follows_the_compose_specification():
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [sys.executable, *command, COMPOSE_FILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_schema_refuses_what_compose_would(tmp_path):
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(COMPOSE_FILE.read_text().replace("start_interval", "begin_interval"))
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [sys.executable, *command, wrong], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1


def test_compose_itself_reads_the_file():
    program = shutil.which("docker-compose")
    if not program:
        pytest.skip("docker-compose is not installed")
    done = subprocess.run(
        [program, "-f", COMPOSE_FILE, "--profile", "*", "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@each_service
def test_a_service_is_checked_or_runs_once(name):
    if name in ONCE:
        waited = [
            spec["depends_on"][name]["condition"]
            for spec in SERVICES.values()
            if name in spec.get("depends_on", {})
        ]
        assert set(waited) == {"service_completed_successfully"}
    else:
        kind, *words = SERVICES[name]["healthcheck"]["test"]
        assert kind in ("CMD", "CMD-SHELL")
        # MLflow's /health answers 200 while every client gets 403.
        assert not any(word.endswith("/health") for word in words if "mlflow" in word)
        assert SERVICES[name]["restart"] == "unless-stopped"


@each_service
def test_a_service_is_bounded(name):
    limits = SERVICES[name]["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory", "pids"}
    assert SERVICES[name]["logging"]["options"]["max-size"]


@each_service
def test_a_service_has_no_privileges(name):
    spec = SERVICES[name]
    uid, gid = spec["user"].split(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert spec["read_only"] is True
    assert any(place.startswith("/tmp:") for place in spec["tmpfs"])
    assert spec["cap_drop"] == ["ALL"]
    assert spec["security_opt"] == ["no-new-privileges:true"]
    forbidden = {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices", "env_file"}
    assert not forbidden & set(spec)
    assert not any("docker.sock" in volume for volume in spec.get("volumes", []))


@each_service
def test_secrets_are_files_and_each_is_used(name):
    spec = SERVICES[name]
    given = spec.get("environment", {})
    named = {value.removeprefix("/run/secrets/") for value in given.values() if "/run/se" in value}
    for key, value in given.items():
        if SECRET.search(key):
            allowed = value.startswith("/run/secrets/") or value in ("true", "false", "token")
            assert allowed, f"{key} holds a value, not a file"
        if key.endswith("__FILE") and not key.startswith("GF_"):
            assert spec["entrypoint"] == ["/opt/rootstock/services/with-secrets"]
    words = " ".join(spec.get("healthcheck", {}).get("test", []))
    assert named | set(re.findall(r"/run/secrets/(\w+)", words)) == set(spec.get("secrets", []))


def test_only_the_proxy_is_published_and_only_here():
    published = {name: spec["ports"] for name, spec in SERVICES.items() if "ports" in spec}
    assert set(published) == {"proxy"}
    assert all(port.startswith("127.0.0.1:") for port in published["proxy"])


def test_networks_have_no_way_out_but_the_proxys():
    open_networks = {
        name for name, spec in COMPOSE["networks"].items() if spec.get("internal") != "true"
    } - {name for name, spec in COMPOSE["networks"].items() if spec.get("internal") is True}
    assert open_networks == {"edge"}
    assert [name for name, spec in SERVICES.items() if "edge" in spec["networks"]] == ["proxy"]


def test_who_shares_a_network_with_whom():
    """The table of docs/explanation/security.md: a new connection is a decision."""
    members = {
        network: {name for name, spec in SERVICES.items() if network in spec["networks"]}
        for network in COMPOSE["networks"]
    }
    replicas, workers = {"inference", "inference-gpu"}, {"ray-worker", "ray-worker-gpu"}
    assert members == {
        "edge": {"proxy"},
        "serving": {"proxy", "prometheus", "studio"} | replicas,
        "tracking": {"proxy", "mlflow", "accounts", "studio"} | replicas,
        "cluster": {"mlflow", "ray-head"} | workers,
        "storage": {"postgres", "mlflow"},
        "watching": {"proxy", "prometheus", "grafana"},
        "outside": {"mlflow"},
    }


def test_ray_and_mlflow_are_closed():
    for name in ("ray-head", "ray-worker", "ray-worker-gpu"):
        given = SERVICES[name]["environment"]
        assert given["RAY_AUTH_MODE"] == "token"
        assert given["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    mlflow = SERVICES["mlflow"]
    assert "--app-name=basic-auth" in mlflow["command"]
    given = mlflow["environment"]
    assert given["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    for door in ("SERVER_ENABLE_JOB_EXECUTION", "ENABLE_AI_GATEWAY", "ENABLE_REMOTE_ASSISTANT"):
        assert given[f"MLFLOW_{door}"] == "false"
    assert "mlflow:5000" in given["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert "*" not in given["MLFLOW_SERVER_ALLOWED_HOSTS"]


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_a_profile_has_workers_and_replicas(profile):
    chosen = {name for name, spec in SERVICES.items() if profile in spec.get("profiles", [])}
    suffix = "-gpu" if profile == "gpu" else ""
    assert chosen == {f"ray-worker{suffix}", f"inference{suffix}"}
    for name in chosen:
        devices = SERVICES[name]["deploy"]["resources"].get("reservations", {}).get("devices", [])
        assert [device["driver"] for device in devices] == ["nvidia"] * (profile == "gpu")
        assert "container_name" not in SERVICES[name]


def test_every_mounted_or_built_file_exists():
    for name, spec in SERVICES.items():
        if "build" in spec:
            assert (ROOT / spec["build"]["dockerfile"]).is_file(), name
        for volume in spec.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./services"):
                assert (ROOT / source).exists(), source
                assert volume.endswith(":ro")


DOCKERFILES = sorted((ROOT / "services").glob("*/Dockerfile"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_is_pinned_and_not_roots(path):
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    (base,) = re.findall(r"^FROM (.+)$", text, flags=re.MULTILINE)
    assert re.fullmatch(r"\$\{[A-Z]+_IMAGE\}", base), "the base is a setting, for its digest"
    assert all("-c /build/constraints.txt" in line for line in re.findall("pip install.*", text))
    assert not re.search(r"^ARG .*(INDEX|TOKEN|PASSWORD)", text, flags=re.MULTILINE)
    for command in re.findall("^RUN .*pip install.*$", text, flags=re.MULTILINE):
        assert command.startswith("RUN --mount=type=secret,id=pip_extra_index_url ")
    users = [spec["user"] for spec in SERVICES.values() if _builds(spec, path)]
    (last,) = re.findall(r"^USER (.+)$", text, flags=re.MULTILINE)
    assert set(users) == {last}
    for source in re.findall(r"^COPY (.+) \S+$", text, flags=re.MULTILINE):
        assert all((ROOT / word).exists() for word in source.split())
        assert all(_is_sent(word) for word in source.split())


def _builds(spec, path):
    return ROOT / spec.get("build", {}).get("dockerfile", "none") == path


def _is_sent(word):
    kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), flags=re.MULTILINE)
    return word.rstrip("/").split("/")[0] in kept


def test_images_have_environment_that_native_run_reads():
    found = built_environment(ROOT / "services/inference/Dockerfile")
    assert found["PYTHONPATH"] == "/opt/rootstock/src:/opt/rootstock"


def test_example_has_every_setting_with_its_default():
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^#?([A-Z0-9_]+)=(.*)$", text, flags=re.MULTILINE))
    shown.pop("COMPOSE_PROFILES")
    several = {"INFERENCE_REPLICAS"}  # two on processors, one on a GPU
    found = settings_of_the_file()
    assert set(shown) == set(found)
    for name in set(found) - several:
        assert shown[name] == found[name], name


def test_secrets_are_created_once_for_owner_only(tmp_path):
    folder = tmp_path / "secrets"
    make = [ROOT / "services/make-secrets", folder]
    first = subprocess.run(make, capture_output=True, text=True, check=True).stdout
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert set(before) == set(COMPOSE["secrets"])
    assert folder.stat().st_mode & 0o777 == 0o700
    again = subprocess.run(make, capture_output=True, text=True, check=True).stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert first.count("rsk_") == 3
    assert "rsk_" not in again
    others = ("api_keys", "s3_credentials", "pip_extra_index_url")
    strong = [value for name, value in before.items() if name not in others]
    assert len(set(strong)) == len(strong)
    assert all(len(value) >= 40 for value in strong)


def test_keys_that_are_made_open_the_service(tmp_path):
    from rootstock.service.http.keys import KeyRing

    make = [ROOT / "services/make-secrets", tmp_path / "secrets"]
    told = subprocess.run(make, capture_output=True, text=True, check=True).stdout
    keys = re.findall(r"rsk_\S+", told)
    clients = KeyRing.read(tmp_path / "secrets/api_keys")
    assert [clients.find(key).role for key in keys[:2]] == ["predict", "admin"]
    people = KeyRing.read(tmp_path / "secrets/studio_keys")
    assert [people.find(key) and people.find(key).role for key in keys] == [None, None, "admin"]


def test_command_gets_secret_without_its_file_name(tmp_path):
    (tmp_path / "file").write_text("swordfish\n")
    done = subprocess.run(
        [ROOT / "services/with-secrets", "env"],
        env={"PATH": "/usr/bin:/bin", "WORD__FILE": str(tmp_path / "file"), "OTHER": "a b"},
        capture_output=True,
        text=True,
        check=True,
    )
    given = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert given["WORD"] == "swordfish"
    assert "WORD__FILE" not in given
    assert given["OTHER"] == "a b"


def test_an_empty_secret_is_rejected_by_name(tmp_path):
    (tmp_path / "file").touch()
    done = subprocess.run(
        [ROOT / "services/with-secrets", "env"],
        env={"PATH": "/usr/bin:/bin", "WORD__FILE": str(tmp_path / "file")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"WORD__FILE names {tmp_path / 'file'}, which is empty" in done.stderr
    assert not done.stdout


def exported() -> dict[str, set[str]]:
    """Return each series that the service defines, with its labels."""
    found: dict[str, set[str]] = {"up": set(), "scrape_duration_seconds": set()}
    for collector in Telemetry().registry._collector_to_names:
        if not hasattr(collector, "_labelnames"):
            continue  # the process's and Python's
        labels = set(collector._labelnames)
        (metric,) = collector.describe()
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        for suffix in suffixes.get(metric.type, [""]):
            more = {"le"} if suffix == "_bucket" else set()
            found[metric.name + suffix] = labels | more
    return found


def expressions() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return panels + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("expression", expressions())
def test_a_query_names_what_the_service_exports(expression):
    known = exported()
    selectors = re.findall(r"\b(rootstock_\w+|up)(?:\{([^}]*)\})?", expression)
    assert selectors
    for name, matchers in selectors:
        assert name in known, f"{name} is not a metric of the service"
        asked = set(re.findall(r'(\w+)[!=]~?"', matchers.replace("=~", "=")))
        assert asked <= known[name] | {"job", "instance"}
    grouped = set(re.findall(r"[\w]+", " ".join(re.findall(r"by \(([^)]*)\)", expression))))
    assert grouped <= set().union(*(known[name] for name, _ in selectors)) | {"job", "instance"}


def test_rule_tests_use_series_of_the_service():
    known = exported()
    groups = yaml.safe_load(RULES.with_name("rules_test.yml").read_text(encoding="utf-8"))["tests"]
    series = [one["series"] for group in groups for one in group["input_series"]]
    assert series
    for text in series:
        name, _, labels = text.partition("{")
        assert set(re.findall(r'(\w+)="', labels)) == known[name] | {"job", "instance"}, text


def test_every_metric_is_watched_somewhere():
    watched = " ".join(expressions())
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported()}
    assert not [name for name in names if name.startswith("root") and name not in watched]


def test_the_dashboard_reads_the_provisioned_source():
    folder = ROOT / "services/grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards/rootstock.yml").read_text())["providers"]
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    # Also for use in another Grafana, whose source has a different uid.
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {"${datasource}"}
    (variable,) = dashboard["templating"]["list"]
    assert (variable["name"], variable["type"]) == ("datasource", "datasource")
    assert variable["query"] == source["type"]
    assert source["isDefault"]
    assert source["url"] == "http://prometheus:9090"
    mounted = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.parametrize(
    "command",
    [
        ["promtool", "check", "config", "services/prometheus/prometheus.yml"],
        ["promtool", "test", "rules", "services/prometheus/rules_test.yml"],
        ["caddy", "validate", "--adapter", "caddyfile", "--config", "services/proxy/Caddyfile"],
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_the_programs_accept_their_files(command, tmp_path):
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed on this machine")
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_certificates_of_ones_own_are_accepted_by_proxy(tmp_path):
    if not (shutil.which("caddy") and shutil.which("openssl")):
        pytest.skip("caddy or openssl is not installed on this machine")
    pair = [str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=a.example"]
    subprocess.run([*make, "-out", pair[0], "-keyout", pair[1]], capture_output=True, check=True)
    done = subprocess.run(
        ["caddy", "validate", "--adapter", "caddyfile", "--config", "services/proxy/Caddyfile"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ROOTSTOCK_TLS": " ".join(pair)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_stack_files_contain_no_unchecked_digest():
    """Operators pin digests: a made-up one would be worse than a tag."""
    paths: list[Path] = [COMPOSE_FILE, *DOCKERFILES, ROOT / ".env.example"]
    assert not any("@sha256:" in re.sub(r"#.*", "", path.read_text()) for path in paths)


def test_certificates_are_with_secrets_by_default():
    def places(**settings):
        return read_compose(settings)["services"]["proxy"]["volumes"]

    assert "./secrets/certificates:/certificates:ro" in places()
    assert "/safe/certificates:/certificates:ro" in places(SECRETS="/safe")
    assert "/tls:/certificates:ro" in places(SECRETS="/safe", ROOTSTOCK_CERTIFICATES="/tls")


def test_secrets_that_were_interrupted_are_made_whole(tmp_path):
    """Interrupted between two keys, or within a file: a partial file never counts as complete."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / ".api_keys.new").write_text("first-predict predict 0")
    (folder / "ray_token").touch()
    done = subprocess.run(
        [ROOT / "services/make-secrets", folder], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("rsk_") == 3
    assert len((folder / "api_keys").read_text().splitlines()) == 2
    assert len((folder / "ray_token").read_text()) >= 40
    assert not list(folder.glob(".*"))
