"""Images that stay in one split: copies and groups by name; and groups that are too large."""

import hashlib

import numpy as np
import pytest

from rootstock.config.load import load_config
from rootstock.data.groups import join_groups, read_groups, suggest_groups
from rootstock.errors import DataError, RootstockError
from tests.data.folders import photo, write_classes
from tests.data.test_broken_folders import index


def contents(count, prefix=""):
    return [hashlib.sha256(f"{prefix}{n}".encode()).hexdigest() for n in range(count)]


def join(pictures, strata, names=None, shas=None):
    names = names or [""] * len(strata)
    groups, warnings = join_groups(
        shas or contents(len(strata)), np.array(pictures), list(strata), names
    )
    return groups.tolist(), warnings


def test_copies_of_one_class_are_one_group():
    groups, warnings = join([1, 1, 2, 3], "aaab")
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3
    assert warnings == []


def test_near_copies_across_classes_are_not_grouped():
    groups, _ = join([1, 1, 1, 2], "aabb")
    assert groups[0] == groups[1] != groups[2]


def test_equal_files_across_classes_are_grouped():
    shas = contents(4)
    shas[2] = shas[0]
    groups, _ = join([1, 2, 1, 3], "aabb", shas=shas)
    assert groups[0] == groups[2]


def test_near_copies_filling_a_class_warn_without_grouping():
    groups, warnings = join([1] * 9 + list(range(2, 8)), "a" * 12 + "b" * 3)
    assert len(set(groups)) == 15
    (text,) = warnings
    assert text.startswith("9 of 12 images of a")


def test_few_copies_in_small_class_stay_together():
    groups, warnings = join([1, 1, 1, 2], "aaaa")
    assert len(set(groups)) == 2
    assert warnings == []


def test_named_group_keeps_its_id_with_new_images():
    before, _ = join(range(4), "aabb", ["x", "x", "y", "y"], contents(4, "old"))
    after, _ = join(
        range(6), "aabbab", ["x", "x", "y", "y", "x", "y"], contents(4, "old") + contents(2)
    )
    assert after[:4] == before
    assert after[4:] == [before[0], before[2]]


@pytest.mark.parametrize(
    ("pattern", "path", "name"),
    [
        ("last_number", "stop/00012_00003.ppm", "stop/00012"),
        ("last_number", "a/clip-7 (12).jpg", "a/clip-7"),
        ("first_number", "a/_3_1169.jpeg", "a/_3"),
        ("first_number", "a/p01_s02_0003.png", "a/p01"),
        ("original", "a/cell_12_rot90.png", "a/cell_12"),
        ("original", "a/img12_jpg.rf.8a9f01.jpg", "a/img12"),
        ("patient", "ill/patient12_view1.png", "patient12"),
        ("patient", "well/Case-7/scan.png", "Case-7"),
        ("folder", "a/walk3/0001.png", "a/walk3"),
        (r"_(cam\d)_", "a/x_cam2_17.png", "cam2"),
        (r"cam\d", "a/x_cam2_17.png", "cam2"),
    ],
)
def test_a_pattern_captures_the_name_of_the_group(pattern, path, name):
    assert read_groups(pattern, [path]) == [name]


def test_pattern_that_fits_no_file_is_error():
    with pytest.raises(DataError, match="no file matches(.|\n)*last_number"):
        read_groups("patient", ["a/1.png"])


def test_pattern_that_is_not_expression_is_error(tmp_path):
    (tmp_path / "params.yaml").write_text("data: {group: '(x'}")
    with pytest.raises(RootstockError, match="regular expression"):
        load_config(tmp_path / "params.yaml")


def suggested(paths):
    return [found.pattern for found in suggest_groups(paths, [p.split("/")[0] for p in paths])]


def test_tracks_and_augmented_copies_are_suggested():
    tracks = [f"{c}/{t:05}_{f:05}.ppm" for c in "ab" for t in range(4) for f in range(5)]
    assert suggested(tracks) == ["first_number"]
    turned = [f"{c}/cell{n}_rot{k}.png" for c in "ab" for n in "vwxyz" for k in (90, 180)]
    assert suggested(turned) == ["original"]


@pytest.mark.parametrize("name", ["dog_{}", "IMG_{}", "image ({})", "{}", "n0144_{}"])
def test_running_numbers_in_names_are_not_groups(name):
    assert suggested([f"{c}/{name.format(n)}.jpg" for c in "ab" for n in range(30)]) == []


def test_groups_by_name_stay_in_one_split(tmp_path):
    root = tmp_path / "images"
    for number, label in enumerate("ab"):
        (root / label).mkdir(parents=True)
        for n in range(40):
            (root / label / f"{n // 4:03}_{n % 4:03}.png").write_bytes(photo(100 * number + n))
    torn, whole = (
        {(row.path[:5], row.split) for row in index(root, group=group).rows()}
        for group in (None, "last_number")
    )
    assert len(whole) == 20 < len(torn)


@pytest.mark.parametrize(("duplicates", "pictures"), [("off", 14), ("exact", 13), ("near", 12)])
def test_setting_decides_which_copies_are_grouped(tmp_path, duplicates, pictures):
    root = write_classes(tmp_path / "images", {"a": 6, "b": 6})
    (root / "a/equal.png").write_bytes(photo(0))
    (root / "a/near.png").write_bytes(photo(1, side=90))
    manifest = index(root, duplicates=duplicates)
    for key in ("picture", "group"):
        assert len({getattr(row, key) for row in manifest.rows()}) == pictures
