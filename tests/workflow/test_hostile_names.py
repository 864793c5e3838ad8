"""A label and a file name that would break pages and terminals, through all stages."""

import csv
import html
import json

import pytest

from rootstock.cli.main import main
from rootstock.config.paths import Paths
from tests.data.folders import photo
from tests.folder_registry import FolderRegistry
from tests.workflow.test_run import configure, go

markdown_it = pytest.importorskip("markdown_it")

pytestmark = pytest.mark.integration

LABEL = "a|b\n# <script>alert(1)</script> [x](javascript:x) ![y](http://z/y.png) \x1b[31m`_*$"
NAME = "<img src=x>|`\x1b[2J"
SHOWN = LABEL.replace("\n", "\\n").replace("\x1b", "\\x1b")
REPORTS = ("data.md", "plan.md", "evaluation.md", "model_card.md")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A trained and registered model of two classes that look the same to it."""
    root = tmp_path_factory.mktemp("hostile")
    rows = [("path", "label")]
    for number in range(24):
        for label, folder in ((LABEL, "one"), ("plain", "two")):
            (root / folder).mkdir(exist_ok=True)
            path = f"{folder}/{NAME}{number}.png"
            (root / path).write_bytes(photo(number + 100 * (label == "plain")))
            rows.append((path, label))
    rows.append(("two/no\n\x1b[1mfile.png", "plain"))
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    paths = Paths(root / "out")
    config = configure(root / "labels.csv", "plan.strategy=linear_probe")
    go(config, paths.root, FolderRegistry(paths.root / "registry"))
    return paths


@pytest.mark.parametrize("name", REPORTS)
def test_pages_contain_nothing_executable_or_linked(finished, name):
    page = (finished.reports / name).read_text(encoding="utf-8")
    assert "\x1b" not in page
    shown = markdown_it.MarkdownIt("commonmark").enable("table").render(page)
    assert "<script" not in shown
    assert "<img src=x" not in shown
    assert 'javascript:x"' not in shown
    assert 'http://z/y.png"' not in shown


def test_report_for_browsers_shows_label_as_text(finished):
    page = (finished.reports / "report.html").read_text(encoding="utf-8")
    assert f"<td>{html.escape(SHOWN)}</td>" in page
    assert "<script" not in page
    assert "\x1b" not in page


def test_the_tables_of_the_reports_show_the_label(finished):
    for name in ("evaluation.md", "model_card.md"):
        page = (finished.reports / name).read_text(encoding="utf-8")
        shown = markdown_it.MarkdownIt("commonmark").enable("table").render(page)
        assert f"<td>{html.escape(SHOWN)}</td>" in shown.replace("&#x27;", "'")


def test_a_terminal_gets_no_control_characters(finished, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    table = finished.root.parent / "labels.csv"
    main(["check", str(table)])
    output = capsys.readouterr()
    assert SHOWN in output.out
    assert "\x1b" not in output.out + output.err
    text = table.read_text(encoding="utf-8").replace("plain", "other \x1b[31m")
    table.with_name("others.csv").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", str(table.with_name("others.csv")), "--model", str(finished.model)])
    message = str(caught.value.code)
    assert "has no classes other \\x1b[31m" in message
    assert SHOWN in message
    assert "\x1b" not in message


def test_files_for_machines_keep_the_label(finished):
    assert LABEL in json.loads((finished.model / "bundle.json").read_text())["names"]
    with (finished.reports / "per_class.csv").open(newline="", encoding="utf-8") as file:
        assert LABEL in {row["class"] for row in csv.DictReader(file)}
