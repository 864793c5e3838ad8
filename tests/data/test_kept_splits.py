"""Old images keep their split when data are added, and each class gets its share."""

import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from rootstock.data.manifest import Manifest
from rootstock.data.splits import assign_splits
from tests.data.folders import photo, write_classes
from tests.data.test_broken_folders import index

SHARES = {"val_fraction": 0.15, "test_fraction": 0.15}


def splits_of(manifest):
    return {row.path: row.split for row in manifest.rows()}


def first_index(tmp_path, counts):
    root = write_classes(tmp_path / "images", counts)
    manifest = index(root, **SHARES)
    manifest.write(tmp_path / "manifest.parquet")
    return root, Manifest.read(tmp_path / "manifest.parquet")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1, 2, 3])
def test_each_class_gets_its_exact_share_if_groups_allow(seed, size):
    counts = {"a": 20, "b": 40, "c": 101, "d": 7}
    strata = [name for name, count in counts.items() for _ in range(count)]
    groups = np.arange(len(strata)) // size
    splits = assign_splits(groups, strata, [None] * len(strata), **SHARES, seed=seed)
    found = Counter(zip(strata, splits, strict=True))
    for name, count in counts.items():
        for split in ("val", "test"):
            assert abs(found[name, split] - 0.15 * count) <= max(1, size)


def test_new_images_move_no_old_image(tmp_path):
    root, manifest = first_index(tmp_path, {"a": 20, "b": 30, "c": 3})
    for round_ in range(1, 4):
        old = splits_of(manifest)
        grown = {"a": 9, "b": 1, "c": 5, f"new{round_}": 4}
        for number, (name, count) in enumerate(grown.items()):
            (root / name).mkdir(exist_ok=True)
            for n in range(count):
                content = photo(10_000 * round_ + 100 * number + n)
                (root / name / f"later{round_}_{n}.png").write_bytes(content)
        manifest = index(root, **SHARES, previous=manifest)
        new = splits_of(manifest)
        assert {path: new[path] for path in old} == old
        for split in ("val", "test"):
            counts = Counter(row.stratum for row in manifest.rows(split))
            totals = Counter(row.stratum for row in manifest.rows())
            assert all(abs(counts[s] - 0.15 * totals[s]) <= 1 for s in totals)


def test_added_copies_join_their_originals_and_move_none(tmp_path):
    root, manifest = first_index(tmp_path, {"a": 40, "b": 40})
    old = splits_of(manifest)
    assert Counter(old.values())["test"] == 12
    for path in sorted(old)[::2]:
        place = root / path
        shutil.copy(place, place.with_name(f"copy_{place.name}"))
    new = splits_of(index(root, **SHARES, previous=manifest))
    for path, split in new.items():
        assert split == old[path.replace("copy_", "")]


def test_an_image_that_was_renamed_keeps_its_split(tmp_path):
    root, manifest = first_index(tmp_path, {"a": 20, "b": 20})
    (root / "a").rename(root / "z")
    found = splits_of(index(root, **SHARES, previous=manifest))
    assert {p.replace("z/", "a/"): s for p, s in found.items()} == splits_of(manifest)


@pytest.mark.parametrize("change", [{"seed": 1}, {"val_fraction": 0.3}, {"group": "last_number"}])
def test_other_settings_draw_all_splits_again(tmp_path, change):
    root, manifest = first_index(tmp_path, {"a": 20, "b": 20})
    for n, path in enumerate(sorted(root.rglob("*.png"))):
        path.rename(path.with_name(f"scene_{n // 2}_{n}.png" if n % 2 else f"scene_{n // 2}.png"))
    settings = SHARES | change
    assert index(root, **settings, previous=manifest) == index(root, **settings)


def test_older_manifest_keeps_all_except_divided_groups(tmp_path):
    root, manifest = first_index(tmp_path, {"a": 20, "b": 20})
    swap = {"train": "val", "val": "test", "test": "train"}
    rows = tuple(row._replace(split=swap[row.split]) for row in manifest.images)
    old = replace(manifest, images=rows, drawn_by="")
    assert splits_of(index(root, **SHARES, previous=old)) == splits_of(old)
    one, other = (next(r.path for r in old.rows(s) if r.stratum == "a") for s in ("train", "test"))
    shutil.copy(root / one, root / other)
    sha256 = next(r.sha256 for r in rows if r.path == one)
    twins = tuple(r._replace(sha256=sha256) if r.path == other else r for r in rows)
    found = splits_of(index(root, **SHARES, previous=replace(old, images=twins)))
    assert found[one] == found[other]


def test_class_without_training_images_gets_some_again(tmp_path):
    root, manifest = first_index(tmp_path, {"a": 20, "b": 20})
    for row in manifest.rows("train"):
        if row.stratum == "a":
            (root / row.path).unlink()
    found = index(root, **SHARES, previous=manifest)
    assert {row.stratum for row in found.rows("train")} == {"a", "b"}
