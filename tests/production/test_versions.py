"""An offline audit: pinned versions compared with a list of safe versions."""

import json
import re
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
MINIMUM = json.loads(Path(__file__).with_name("minimum_versions.json").read_text(encoding="utf-8"))
SECURITY_PAGE = (ROOT / "docs/explanation/security.md").read_text(encoding="utf-8")


def pinned() -> dict[str, Version]:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pairs = re.findall(r"^([\w.-]+)==(\S+)$", text, flags=re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in pairs}


@pytest.mark.parametrize("entry", MINIMUM, ids=lambda entry: entry["package"])
def test_pinned_version_is_not_older_than_safe_one(entry):
    found = pinned()[canonicalize_name(entry["package"])]
    assert found >= Version(entry["minimum"]), entry["because"]


@pytest.mark.parametrize("entry", MINIMUM, ids=lambda entry: entry["package"])
def test_the_security_page_names_the_version(entry):
    row = rf"\| {re.escape(entry['package'])} \| {re.escape(entry['minimum'])} \|"
    assert re.search(row, SECURITY_PAGE) or entry["package"] == "mlflow-skinny"


def test_every_package_is_pinned_to_one_version():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    loose = [line for line in lines if line and not re.match(r"#|[\w.-]+==[\w.!+]+$", line)]
    assert not loose
    assert len(pinned()) == sum("==" in line for line in lines)
