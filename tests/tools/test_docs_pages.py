"""Pages that are made from the code, and the site that MkDocs builds of all pages."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rootstock.cli.main import build_parser
from rootstock.config.describe import describe_keys
from rootstock.service.settings import Settings
from rootstock.tasks import get_task, task_names
from tools.docs.commands import list_commands
from tools.docs.http import list_settings
from tools.docs.metrics import MEANINGS, list_series
from tools.docs.pages import GENERATED

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "src/rootstock").rglob("*.py")


@pytest.fixture(scope="module")
def pages():
    return {name: make_page() for name, make_page in GENERATED.items()}


def test_every_key_has_a_row(pages):
    page = pages["reference/parameters.md"]
    assert [key.name for key in describe_keys() if f"| `{key.name}` |" not in page] == []


def test_every_command_and_option_is_listed(pages):
    page = pages["reference/cli.md"]
    for name, command in list_commands(build_parser()):
        section = page.partition(f"## rootstock {name}\n")[2].partition("\n## ")[0]
        assert command.description.strip() in section
        for action in command._actions[1:]:  # the first is --help
            assert all(option in section for option in action.option_strings)


def test_every_setting_of_the_service_has_a_meaning(pages):
    rows = list(list_settings())
    assert [row[0] for row in rows] == list(Settings.model_fields)
    assert all(meaning for _, _, meaning in rows)
    assert all(f"`ROOTSTOCK_{name.upper()}`" in pages["reference/http.md"] for name, *_ in rows)


def test_the_routes_of_the_service_are_listed(pages):
    headings = re.findall(r"^### (\w+ \S+)$", pages["reference/http.md"], re.MULTILINE)
    assert {"POST /v1/predict", "GET /metrics", "POST /admin/rollback"} <= set(headings)
    assert len(headings) == len(set(headings))


def test_every_metric_of_a_task_has_a_meaning():
    for name in task_names():
        assert set(get_task(name).gate_metrics) <= set(MEANINGS)
    code = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    named = set(re.findall(r'"(\w+)"', code)) | {"robust_accuracy"}  # joined from two words
    assert set(MEANINGS) <= named


def test_every_series_that_an_alert_reads_is_listed():
    rules = (ROOT / "services/prometheus/rules.yml").read_text(encoding="utf-8")
    used = set(re.findall(r"\brootstock_\w+?(?=_bucket|_sum|_count|\b)", rules))
    listed = {name.strip("`") for name, *_ in list_series()}
    assert used
    assert used <= listed


def test_python_page_shows_signatures_as_they_are_written(pages):
    page = pages["reference/python.md"]
    assert "rootstock.load(model: str | Path = '') -> Model" in page
    assert "## rootstock.client.Client\n" in page
    assert "<class" not in page
    assert " object at 0x" not in page


def test_site_has_valid_links_and_no_external_requests(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir"]
    variables = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = subprocess.run(
        [*command, tmp_path], cwd=ROOT, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(GENERATED) + 20
    loaded = re.compile(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"')
    found = {match for page in pages for match in loaded.findall(page.read_text("utf-8"))}
    assert not {match for match in found if 'rel="canonical"' not in match}
    index = (tmp_path / "search/search_index.json").read_text(encoding="utf-8")
    assert "plan.strategy" in index
