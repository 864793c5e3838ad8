import csv
import json

import pytest

from tests.bundles import jpeg, tiny_bundle
from tests.cli.test_cli import fails, run


@pytest.fixture
def pool(tmp_path):
    folder = tmp_path / "pool"
    folder.mkdir()
    for seed in range(8):
        (folder / f"{seed}.jpg").write_bytes(jpeg(seed))
    (folder / "again.jpg").write_bytes(jpeg(0))
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def test_list_is_printed_written_and_same_again(pool, tmp_path, capsys):
    arguments = ["suggest", pool, "-n", "3", "--model", tiny_bundle(), "--out"]
    out = run(capsys, *arguments, tmp_path / "one.csv")
    assert "3 of 8 images; skipped 1 that are in the training set" in out
    run(capsys, *arguments, tmp_path / "two.csv")
    text = (tmp_path / "one.csv").read_text()
    assert (tmp_path / "two.csv").read_text() == text
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert {row["path"] for row in rows} <= {path.name for path in pool.iterdir()}
    listed = json.loads(run(capsys, *arguments[:-1], "--json"))
    assert [row["path"] for row in listed] == [row["path"] for row in rows]


def test_a_folder_without_images_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "contains no images" in fails("suggest", tmp_path / "empty", "--model", tiny_bundle())
