"""The manifests and the Helm chart fit the schemas of Kubernetes and the service's settings."""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from rootstock.service.http.app import create_app
from rootstock.service.settings import Settings
from rootstock.service.watch.telemetry import Telemetry
from tests.bundles import tiny_bundle

SERVICES = Path(__file__).parents[2] / "services"
CHART, PLAIN = SERVICES / "helm/rootstock", SERVICES / "kubernetes"
KUBERNETES = ["1.29", "1.31", "1.35"]
MANIFESTS = sorted(path.name for path in (CHART / "templates").glob("*.yaml"))
OTHERS = {
    "grpc": True,
    "models": "flowers,digits",
    "keysSecret": "",
    "autoscaling": {"enabled": False},
    "registry": {"passwordSecret": ""},
    "pullSecrets": ["images"],
    "environment": {"ROOTSTOCK_RATE_PER_SECOND": "20"},
}


def read(name):
    return yaml.safe_load((PLAIN / name).read_text(encoding="utf-8"))


def render(values=None):
    """Return the rendered templates by name; without Helm the test is skipped."""
    helm = pytest.importorskip("helm_python", reason="the extra `interop` is not installed (Helm)")
    found = helm.Chart.load(CHART).render(values or {}, name="rootstock")
    return {Path(path).name: text for path, text in found.items()}


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("version", KUBERNETES)
def test_plain_manifests_fit_the_schemas(name, version):
    kubernetes_validate.validate(read(name), version, strict=True)


def test_the_schemas_refuse_a_misspelt_field():
    manifest = read("deployment.yaml")
    manifest["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, KUBERNETES[0], strict=True)


def test_kustomization_lists_the_manifests():
    assert sorted(read("kustomization.yaml")["resources"]) == MANIFESTS


def test_plain_manifests_are_chart_with_its_own_values():
    rendered = render()
    assert {name: text.strip() for name, text in rendered.items()} == {
        name: (PLAIN / name).read_text(encoding="utf-8").strip() for name in MANIFESTS
    }


def test_chart_passes_lint_and_schemas_with_other_values():
    helm = pytest.importorskip("helm_python", reason="the extra `interop` is not installed (Helm)")
    report = helm.lint(CHART, OTHERS, strict=True)
    assert not report["errors"]
    texts = [text for text in render(OTHERS).values() if text.strip()]
    assert len(texts) == len(MANIFESTS) - 1
    for text in texts:
        kubernetes_validate.validate(yaml.safe_load(text), KUBERNETES[1], strict=True)
    deployment = next(text for text in texts if "kind: Deployment" in text)
    names = [one["name"] for one in container(yaml.safe_load(deployment))["env"]]
    assert {"ROOTSTOCK_MODELS", "ROOTSTOCK_GRPC_PORT", "ROOTSTOCK_RATE_PER_SECOND"} <= set(names)
    assert not {"ROOTSTOCK_MODEL", "ROOTSTOCK_KEYS", "MLFLOW_TRACKING_PASSWORD"} & set(names)


def container(deployment):
    [one] = deployment["spec"]["template"]["spec"]["containers"]
    return one


def test_container_has_no_rights_that_it_does_not_need():
    pod = read("deployment.yaml")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    inside = container(read("deployment.yaml"))["securityContext"]
    assert inside["readOnlyRootFilesystem"]
    assert not inside["allowPrivilegeEscalation"]
    assert inside["capabilities"] == {"drop": ["ALL"]}


def test_no_variable_of_kubernetes_becomes_a_setting():
    """A Service of the name `rootstock` would set ROOTSTOCK_PORT=tcp://..."""
    assert read("deployment.yaml")["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_variables_are_settings_and_probes_are_routes():
    one = container(read("deployment.yaml"))
    names = [variable["name"] for variable in one["env"]]
    settings = {name for name in names if name.startswith("ROOTSTOCK_")}
    assert settings <= {f"ROOTSTOCK_{name.upper()}" for name in Settings.model_fields}
    routes = set(create_app(Settings(model=str(tiny_bundle()))).openapi()["paths"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert one[probe]["httpGet"]["path"] in routes
    pod = read("deployment.yaml")["spec"]["template"]["spec"]
    values = {variable["name"]: variable.get("value") for variable in one["env"]}
    takes = int(values["ROOTSTOCK_LINGER_SECONDS"]) + int(values["ROOTSTOCK_DRAIN_SECONDS"])
    assert pod["terminationGracePeriodSeconds"] > takes


def test_the_autoscaler_reads_a_metric_of_the_service():
    [metric] = read("autoscaler.yaml")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert name in {family.name for family in Telemetry().registry.collect()}
    [rule] = read("prometheus-adapter.yaml")["rules"]["custom"]
    assert rule["name"]["matches"] == name
    assert rule["seriesQuery"].startswith(name)


def test_the_image_is_that_of_the_compose_file():
    compose = (SERVICES.parent / "docker-compose.yml").read_text(encoding="utf-8")
    assert f":-{container(read('deployment.yaml'))['image']}}}" in compose
    assert container(read("deployment.yaml"))["command"] == ["python", "-m", "services.inference"]
