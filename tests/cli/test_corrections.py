import csv
import io
import json

import pytest

from rootstock.data.label_corrections import read_corrections
from rootstock.data.manifest import Manifest
from tests.cli.test_cli import _elsewhere, fails, run  # noqa: F401 - a fixture
from tests.data.folders import write_classes


@pytest.fixture
def manifest(tmp_path, capsys):
    """Return the manifest of a project with two classes."""
    write_classes(tmp_path / "data", {"ants": 9, "bees": 9})
    (tmp_path / "params.yaml").write_text("data: {root: data}\n")
    return reindex(tmp_path)


def reindex(tmp_path):
    from rootstock.config.load import load_config
    from rootstock.config.paths import Paths
    from rootstock.workflow.index import index_images

    return index_images(load_config(tmp_path / "params.yaml"), Paths(tmp_path))


def rows(tmp_path):
    return read_corrections(tmp_path / "data/corrections.csv")


def test_labels_of_a_table_become_corrections(manifest, tmp_path, capsys):
    (tmp_path / "new.csv").write_text(
        "path,label\nants/0.png,bees\nants/1.png,ants\nants/2.png,(remove)\nnone.png,ants\n"
    )
    out = run(capsys, "corrections", "import", "new.csv", "--who", "Ada")
    assert "2 corrections added, 1 labels unchanged" in out
    assert "1 are not labels of images in the data, such as none.png" in out
    assert [(one.old, one.new, one.who) for one in rows(tmp_path)] == [
        ("ants", "bees", "Ada"),
        ("ants", "(remove)", "Ada"),
    ]
    assert reindex(tmp_path).summary()["removed"] == 1


def test_import_can_undo_a_correction(manifest, tmp_path, capsys):
    (tmp_path / "new.csv").write_text("path,label\nants/0.png,bees\n")
    (tmp_path / "back.csv").write_text("path,label\nants/0.png,(original)\nants/1.png,(original)\n")
    run(capsys, "corrections", "import", "new.csv")
    out = run(capsys, "corrections", "import", "back.csv")
    assert "1 corrections added, 1 labels unchanged" in out
    assert [(one.old, one.new) for one in rows(tmp_path)] == [
        ("ants", "bees"),
        ("bees", "(original)"),
    ]
    assert reindex(tmp_path) == manifest
    first, undone = json.loads(run(capsys, "corrections", "list", "--json"))
    assert (first["in_force"], undone["in_force"]) == (False, True)


def test_a_second_import_adds_nothing(manifest, tmp_path, capsys):
    (tmp_path / "new.csv").write_text("path,label\nants/0.png,bees\n")
    for _ in range(2):
        run(capsys, "corrections", "import", "new.csv")
        reindex(tmp_path)
    assert len(rows(tmp_path)) == 1
    again = tmp_path / "other.csv"
    again.write_bytes((tmp_path / "data/corrections.csv").read_bytes())
    assert json.loads(run(capsys, "corrections", "import", "other.csv", "--json"))["added"] == 0


def test_list_shows_images_conflicts_and_current_labels(manifest, tmp_path, capsys):
    sha256 = next(row.sha256 for row in manifest.images if row.path == "ants/0.png")
    time = "2026-11-30T09:00:00+00:00"
    (tmp_path / "data/corrections.csv").write_text(
        "sha256,old,new,who,when,why\n"
        f"{sha256},ants,bees,Ada,{time},wings\n{sha256},ants,wasps,Ben,{time},\n"
    )
    out = run(capsys, "corrections", "list")
    assert "ants/0.png: ants -> bees  wings  [replaced, conflict]" in out
    assert "ants/0.png: ants -> wasps  [conflict]" in out
    assert "2 rows, 1 in force, 1 conflicts" in out
    listed = json.loads(run(capsys, "corrections", "list", "--json"))
    assert [row["in_force"] for row in listed] == [False, True]


@pytest.mark.parametrize("form", ["coco", "label-studio", "csv"])
def test_what_is_exported_can_be_imported(manifest, tmp_path, capsys, form):
    out = "labels.csv" if form == "csv" else "labels.json"
    run(capsys, "corrections", "export", "--all", "--format", form, "--out", out)
    text = (tmp_path / out).read_text()
    assert text.count("bees") >= 9
    changed = text.replace('"bees"', '"wasps"').replace(",bees\n", ",wasps\n")
    (tmp_path / out).write_text(changed)
    answer = json.loads(run(capsys, "corrections", "import", out, "--json"))
    assert answer == {"added": 9, "unchanged": 9, "unknown": []}
    assert {one.new for one in rows(tmp_path)} == {"wasps"}
    exported = run(capsys, "corrections", "export")
    assert {row["label"] for row in csv.DictReader(io.StringIO(exported))} == {"wasps"}


def test_wrong_label_adds_nothing_and_names_image(manifest, tmp_path):
    (tmp_path / "new.csv").write_text("path,label\nants/0.png,bees\nants/1.png,\n")
    assert "ants/1.png" in fails("corrections", "import", "new.csv")
    assert rows(tmp_path) == ()


@pytest.mark.parametrize("text", ["{", "[]x", '{"images": 3}', '[{"data": 3}]', '"text"'])
def test_a_file_of_something_else_is_an_error(manifest, tmp_path, text):
    (tmp_path / "new.json").write_text(text)
    assert "cannot be read as labels" in fails("corrections", "import", "new.json")


def test_a_project_without_an_index_is_told_so(tmp_path):
    assert "run the stage `index`" in fails("corrections", "list")


def test_a_manifest_elsewhere_can_be_named(manifest, tmp_path, capsys, monkeypatch):
    (tmp_path / "aside").mkdir()
    monkeypatch.chdir(tmp_path / "aside")
    (tmp_path / "params.yaml").unlink()
    arguments = ["--project", "..", "--data", "../data", "--json"]
    assert json.loads(run(capsys, "corrections", "list", *arguments)) == []
    assert Manifest.read(tmp_path / "artifacts/manifest.parquet") == manifest
