"""Broken data folders and tables, each with its decided message."""

import re

import pytest

from rootstock.data.build_manifest import build_manifest
from rootstock.data.layout import find_images
from rootstock.data.limits import DecodeLimits
from rootstock.errors import DataError
from rootstock.tasks.single_label.task import SingleLabel
from tests.data.folders import photo, write_classes

SETTINGS = {
    "limits": DecodeLimits(),
    "val_fraction": 0.2,
    "test_fraction": 0.2,
    "near_duplicate_bits": 3,
    "min_per_class": 3,
    "seed": 0,
    "workers": 1,
}


def index(root, **changes):
    return build_manifest(find_images(root), rules=SingleLabel(), **(SETTINGS | changes))


def loose(root):
    for number in range(3):
        (root / f"{number}.png").write_bytes(photo(number))


def broken_class(root):
    write_classes(root, {"a": 5})
    (root / "b").mkdir()
    for number in range(4):
        (root / "b" / f"{number}.jpg").write_bytes(b"not an image")


def all_broken(root):
    for label in "ab":
        (root / label).mkdir()
        for number in range(4):
            (root / label / f"{number}.jpg").write_bytes(b"")


def table(text):
    def build(root):
        write_classes(root, {"a": 4, "b": 4})
        (root / "labels.csv").write_text(text)
        return root / "labels.csv"

    return build


def parquet_rubbish(root):
    (root / "labels.parquet").write_bytes(b"PAR1 rubbish")
    return root / "labels.parquet"


BROKEN = {
    "missing": (lambda root: root / "none", "there is no data at .*none(.|\n)*data.root"),
    "empty": (lambda root: root, "contains no images"),
    "only side files": (
        lambda root: [(root / "a").mkdir(), (root / "a" / "notes.txt").write_text("x")],
        "contains no images",
    ),
    "empty class folders": (
        lambda root: [(root / name).mkdir() for name in "ab"],
        "contains no images",
    ),
    "images without class folders": (loose, "3 files but no class folders"),
    "one class": (lambda root: write_classes(root, {"a": 5}), "has one class, a, but a classifier"),
    "a class that is too small": (
        lambda root: write_classes(root, {"a": 5, "b": 2}),
        r"fewer than 3 usable images: b \(2\)",
    ),
    "a class of broken files": (
        broken_class,
        r"images: b \(0\)\n  4 of 4 files of b are unusable: b/0\.jpg \(not-an-image\)",
    ),
    "nothing but broken files": (
        all_broken,
        r"none of the files in .* is a usable image\n  4 of 4 files of a .*: a/0\.jpg \(empty\)",
    ),
    "a test folder without train": (
        lambda root: [write_classes(root / "test", {"a": 4, "b": 4})],
        "has test but no train folder",
    ),
    "an image instead of a folder": (
        lambda root: [(root / "x.png").write_bytes(photo(0)), root / "x.png"][1],
        "is a file, but not a CSV or Parquet table",
    ),
    "a table without labels": (
        table("path,kind\na/0.png,a\n"),
        "has no column label; its columns are",
    ),
    "an empty table": (table("path,label\n"), "contains no images"),
    "a table out of its folder": (
        table("path,label\n../../etc/passwd,a\n"),
        r"row 1: '../../etc/passwd' is outside",
    ),
    "an absolute path": (table("path,label\n/etc/passwd,a\n"), "row 1: '/etc/passwd' is outside"),
    "a row without a label": (table("path,label\na/0.png,\n"), "row 1: path or label is empty"),
    "an unknown split": (
        table("path,label,split\na/0.png,a,unlabeled\n"),
        "row 1: split 'unlabeled' is not one of train, val, test",
    ),
    "a split without train": (
        table("path,label,split\na/0.png,a,test\nb/0.png,b,test\n"),
        "gives splits, but no row has the split train",
    ),
    "an image listed twice": (
        table("path,label\na/0.png,a\na/0.png,b\n"),
        "lists a/0.png 2 times",
    ),
    "a table that is none": (table('path,label\n"a\n'), "is not a readable table"),
    "a table in another encoding": (
        lambda root: [
            (root / "labels.csv").write_bytes("path,label\nü.png,a\n".encode("utf-16")),
            root / "labels.csv",
        ][1],
        "is not a readable table",
    ),
    "parquet rubbish": (parquet_rubbish, "is not a readable table"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_data_set_is_explained(tmp_path, name):
    build, message = BROKEN[name]
    built = build(tmp_path)
    root = built if hasattr(built, "exists") else tmp_path
    with pytest.raises(DataError, match=message):
        index(root)


def test_reading_a_data_set_does_not_change_it(tmp_path):
    broken_class(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        index(tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
