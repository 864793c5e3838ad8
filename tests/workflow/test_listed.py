"""Images that a table lists: a change of one is noticed, also by DVC."""

import json
import os
import shutil

import pytest

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.data.label_corrections import Correction, append_corrections, stamp_time
from rootstock.data.manifest import Manifest
from rootstock.workflow.index import index_images
from rootstock.workflow.listed import write_listed
from tests.data.folders import photo, write_classes
from tests.projects import Project


def write_table(folder):
    """A table that lists two classes of images next to it."""
    write_classes(folder, {"ants": 6, "bees": 6})
    rows = [f"{path.relative_to(folder)},{path.parent.name}\n" for path in folder.rglob("*.png")]
    (folder / "labels.csv").write_text("path,label\n" + "".join(sorted(rows)))
    return folder / "labels.csv"


@pytest.fixture
def listed(tmp_path):
    """Return the hash of the images that a table, or another root, lists now."""
    table = write_table(tmp_path / "images")

    def digest(root=table):
        config = load_config(None, overrides=[f"data.root={json.dumps(str(root))}"])
        write_listed(config, paths)
        return json.loads(paths.listed.read_text())["sha256"]

    paths = Paths(tmp_path / "work")
    digest.config = load_config(None, overrides=[f"data.root={json.dumps(str(table))}"])
    digest.paths, digest.folder = paths, table.parent
    return digest


def test_hash_is_same_before_and_after_index(listed):
    before = listed()
    index_images(listed.config, listed.paths)
    assert listed() == before
    assert len(before) == 64


def test_correction_next_to_table_changes_hash(listed):
    before = listed()
    row = Correction("0" * 64, "ants", "bees", "Ada", stamp_time())
    append_corrections(listed.folder / "corrections.csv", [row])
    assert listed() != before
    (listed.folder / "corrections.csv").unlink()
    assert listed() == before


def test_replaced_image_changes_the_hash(listed):
    path = listed.folder / "ants/0.png"
    shutil.copyfile(path, listed.folder / "kept.bin")
    before, facts = listed(), path.stat()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert listed() != before
    shutil.copyfile(listed.folder / "kept.bin", path)
    assert listed() == before


def test_missing_and_returning_images_are_noticed(listed):
    path = listed.folder / "bees/1.png"
    before, content = listed(), path.read_bytes()
    path.unlink()
    assert listed() != before
    path.write_bytes(content)
    assert listed() == before


def test_folder_needs_no_extra_hash(listed):
    assert listed(listed.folder) is None


@pytest.mark.integration
def test_dvc_indexes_again_when_listed_image_was_replaced(tmp_path):
    project = Project(tmp_path)
    write_table(tmp_path / "data/listed")
    params = tmp_path / "params.yaml"
    params.write_text(params.read_text().replace("data/raw", "data/listed/labels.csv"))
    project.run("dvc", "repro", "--quiet", "index")
    first = Manifest.read(Paths(tmp_path).manifest)
    project.run("dvc", "repro", "--quiet", "index")
    assert Manifest.read(Paths(tmp_path).manifest) == first
    (tmp_path / "data/listed/ants/0.png").write_bytes(photo(99))
    project.run("dvc", "repro", "--quiet", "index")
    changed = Manifest.read(Paths(tmp_path).manifest)
    assert [a.path for a, b in zip(first.images, changed.images, strict=True) if a != b]
    row = changed.rows("train")[0]
    correction = Correction(row.sha256, row.target, "bees", "Ada", stamp_time())
    append_corrections(tmp_path / "data/listed/corrections.csv", [correction])
    project.run("dvc", "repro", "--quiet", "index")
    assert Manifest.read(Paths(tmp_path).manifest).originals == {row.path: row.target}
