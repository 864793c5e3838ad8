"""Folders as users bring them: what is read, reported, or rejected."""

import os
import unicodedata
from contextlib import contextmanager

import pytest

from rootstock.data.layout import find_images
from rootstock.errors import DataError
from tests.data.folders import photo, write_classes


def read(root, **options):
    """Return images by (target, split), and the warnings as one text."""
    layout = find_images(root, **options)
    counts = {}
    for entry in layout.entries:
        key = (entry.target, entry.split)
        counts[key] = counts.get(key, 0) + 1
    return counts, "\n".join(layout.warnings)


@pytest.mark.parametrize(
    ("train", "test", "split"),
    [
        ("training_set", "test_set", "test"),
        ("Training", "Testing", "test"),
        ("seg_train/seg_train", "seg_test/seg_test", "test"),
        ("train/images", "holdout/images", "test"),
        ("train", "dev", "val"),
        ("TRAIN", "Eval", "test"),
    ],
)
def test_splits_are_read_under_names_that_others_use(tmp_path, train, test, split):
    write_classes(tmp_path / train, {"ants": 2, "bees": 2})
    write_classes(tmp_path / test, {"ants": 1, "bees": 1})
    counts, _ = read(tmp_path)
    assert counts == {
        ("ants", "train"): 2,
        ("bees", "train"): 2,
        ("ants", split): 1,
        ("bees", split): 1,
    }


def test_an_unusual_name_of_a_split_is_reported(tmp_path):
    write_classes(tmp_path / "seg_train", {"ants": 1, "bees": 1})
    write_classes(tmp_path / "seg_test", {"ants": 1, "bees": 1})
    write_classes(tmp_path, {"seg_pred": 3})
    _, warnings = read(tmp_path)
    assert "seg_test as test, seg_train as train" in warnings
    assert "ignored: seg_pred" in warnings


def test_images_without_class_in_split_are_reported(tmp_path):
    write_classes(tmp_path / "train", {"ants": 1, "bees": 1})
    write_classes(tmp_path, {"test1": 3})
    counts, warnings = read(tmp_path)
    assert counts == {("ants", "train"): 1, ("bees", "train"): 1}
    assert "ignored 3 files directly in test1/, which have no label" in warnings


@pytest.mark.parametrize("name", ["test1/test1", "test/unknown", "test/images"])
def test_images_of_a_test_without_labels_are_reported(tmp_path, name):
    write_classes(tmp_path, {"train/ants": 1, "train/bees": 1, name: 3})
    counts, warnings = read(tmp_path)
    assert counts == {("ants", "train"): 1, ("bees", "train"): 1}
    assert "ignored 3 files in test" in warnings


AMBIGUOUS = {
    "splits without class folders": {"train": 2, "test": 2},
    "a test folder next to classes": {"ants": 2, "bees": 2, "test": 2},
    "a test folder of class folders next to classes": {"ants": 2, "test/ants": 1, "bees": 2},
    "training images without class folders": {"train": 2, "test/ants": 1, "test/bees": 1},
    "splits that have no class in common": {"my_train/a": 1, "my_train/b": 1, "my_test/c": 1},
    "classes copied into the folder of the classes": {"ants": 2, "bees": 2, "set/ants": 1},
    "the same folders in all folders": {f"{a}/{b}": 1 for a in "xy" for b in "pq"},
    "a folder of folders next to folders of images": {"0": 1, "1": 1, "set/a": 1, "set/b": 1},
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguous_folders_are_rejected_with_both_readings(tmp_path, name):
    write_classes(tmp_path, AMBIGUOUS[name])
    with pytest.raises(DataError, match=r"is ambiguous(.|\n)*set data\.layout to"):
        find_images(tmp_path)
    counts, _ = read(tmp_path, reading="classes")
    assert {target for target, _ in counts} == {key.split("/")[0] for key in AMBIGUOUS[name]}


def test_folders_are_splits_if_the_settings_say_so(tmp_path):
    write_classes(tmp_path, {"steam_train/ants": 1, "steam_train/bees": 1, "crash_test/wasps": 1})
    counts, _ = read(tmp_path, reading="splits")
    assert counts[("wasps", "test")] == 1


def test_classes_named_like_splits_with_affix_stay_classes(tmp_path):
    write_classes(tmp_path, {"steam_train": 1, "crash_test": 1, "bus": 1, "train": 1})
    counts, warnings = read(tmp_path)
    assert set(counts) == {(name, None) for name in ("steam_train", "crash_test", "bus", "train")}
    assert (
        warnings == "folders named like splits are read as classes: crash_test, steam_train, train"
    )


def test_class_folder_may_contain_folder_of_same_name(tmp_path):
    write_classes(tmp_path, {"ants/ants": 1, "bees/bees": 1})
    assert read(tmp_path)[0] == {("ants", None): 1, ("bees", None): 1}


def test_splits_inside_of_class_folders_are_used(tmp_path):
    write_classes(tmp_path, {f"{c}/{s}": 1 for c in ("ants", "bees") for s in ("train", "test")})
    counts, warnings = read(tmp_path)
    assert set(counts) == {(c, s) for c in ("ants", "bees") for s in ("train", "test")}
    assert "each class folder contains splits" in warnings


def test_folders_below_class_folders_are_reported(tmp_path):
    write_classes(tmp_path, {"healthy/p1": 1, "healthy/p2": 1, "sick/p3": 1, "sick/p4": 1})
    counts, warnings = read(tmp_path)
    assert counts == {("healthy", None): 2, ("sick", None): 2}
    assert "belong to that class: healthy (p1, p2), sick (p3, p4)" in warnings


@pytest.mark.parametrize("inside", ["flowers", "archive/flowers"])
def test_one_folder_too_high_is_read_further_down(tmp_path, inside):
    write_classes(tmp_path / inside, {"daisy": 2, "rose": 2})
    (tmp_path / "cover.png").write_bytes(photo(0))
    counts, warnings = read(tmp_path)
    assert counts == {("daisy", None): 2, ("rose", None): 2}
    assert f"the classes are read from {inside}/" in warnings
    assert find_images(tmp_path).entries[0].path == f"{inside}/daisy/0.png"


def test_one_folder_above_splits_is_read_further_down(tmp_path):
    write_classes(tmp_path / "set/train", {"daisy": 2, "rose": 2})
    write_classes(tmp_path / "set/test", {"daisy": 1, "rose": 1})
    assert read(tmp_path)[0][("rose", "test")] == 1


SYSTEM_FOLDERS = [
    "@eaDir",
    "#recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
    "__macosx",
    ".ipynb_checkpoints",
    ".Trash-1000",
    "FOUND.001",
]


@pytest.mark.parametrize("name", SYSTEM_FOLDERS)
def test_system_folders_are_ignored_at_any_depth(tmp_path, name):
    write_classes(tmp_path, {"ants": 1, "bees": 1, name: 2, f"ants/{name}/0.png": 1})
    assert read(tmp_path) == ({("ants", None): 1, ("bees", None): 1}, "")


def test_photos_that_are_only_in_icloud_are_reported(tmp_path):
    write_classes(tmp_path, {"ants": 1, "bees": 1})
    (tmp_path / "ants/.beach.jpg.icloud").write_bytes(b"bplist00")
    assert "1 image stored only in iCloud" in read(tmp_path)[1]
    assert "ants/.beach.jpg.icloud" in read(tmp_path)[1]


def test_results_of_rootstock_are_no_class(tmp_path):
    write_classes(tmp_path, {"ants": 1, "bees": 1, "run1/reports/plots": 3})
    (tmp_path / "run1/.rootstock").mkdir()
    counts, warnings = read(tmp_path)
    assert set(counts) == {("ants", None), ("bees", None)}
    assert warnings == "folders with results of Rootstock are ignored: run1"


def test_linked_folders_are_followed(tmp_path):
    root = write_classes(tmp_path / "root", {"ants": 1, "bees": 1})
    write_classes(tmp_path / "elsewhere", {"more": 2})
    (root / "ants/more").symlink_to(tmp_path / "elsewhere/more")
    assert read(root)[0] == {("ants", None): 3, ("bees", None): 1}


@pytest.mark.parametrize("target", [".", "..", "../..", "../bees"])
def test_a_link_in_a_circle_ends(tmp_path, target):
    root = write_classes(tmp_path / "root", {"ants": 1, "bees": 1})
    (root / "bees/back").symlink_to(root / "ants")
    (root / "ants/around").symlink_to(root / "ants" / target)
    counts, warnings = read(root)
    assert set(counts) == {("ants", None), ("bees", None)}
    assert "links to a folder that contains them are ignored: " in warnings


def test_names_that_look_the_same_are_one_class(tmp_path):
    composed, split_up = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    try:
        write_classes(tmp_path, {composed: 1, split_up: 2, "tea": 1, "tea ": 1})
    except OSError:
        pytest.skip("this file system takes no such names")
    counts, warnings = read(tmp_path)
    assert counts == {(composed, None): 3, ("tea", None): 2}
    assert "2 class folders are read as the class tea" in warnings
    assert f"2 class folders are read as the class {composed}" in warnings


def test_a_blank_name_is_rejected(tmp_path):
    write_classes(tmp_path, {"ants": 1, "  ": 1})
    with pytest.raises(DataError, match="whose name is blank"):
        find_images(tmp_path)


@contextmanager
def nobody(folder):
    """Read as a user who does not own the files, because root may read everything."""
    if os.geteuid():
        yield
        return
    for place in (folder, *folder.parents):
        if place.stat().st_uid == 0 and place != place.parent and len(place.parts) > 2:
            place.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_cannot_be_read_is_reported(tmp_path):
    root = write_classes(tmp_path / "root", {"ants": 1, "ants/wild": 1, "bees": 1})
    (root / "ants/wild").chmod(0)
    try:
        with nobody(root):
            counts, warnings = read(root)
    finally:
        (root / "ants/wild").chmod(0o755)
    assert counts == {("ants", None): 1, ("bees", None): 1}
    assert (
        "folders that cannot be read, whose images are therefore missing: ants/wild (Perm"
        in warnings
    )


def test_root_that_cannot_be_read_is_error(tmp_path):
    root = write_classes(tmp_path / "root", {"ants": 1})
    with nobody(root):
        pass
    root.chmod(0)
    try:
        with nobody(root.parent), pytest.raises(DataError, match="cannot read .*: Permission"):
            find_images(root)
    finally:
        root.chmod(0o755)


def test_a_table_next_to_loose_images_is_named(tmp_path):
    (tmp_path / "0.png").write_bytes(photo(0))
    (tmp_path / "labels.csv").write_text("path,label\n0.png,ant\n")
    with pytest.raises(DataError, match=r"no class folders labels\.csv next to (.|\n)* pass .*csv"):
        find_images(tmp_path)


def test_a_table_next_to_class_folders_is_reported(tmp_path):
    write_classes(tmp_path, {"ants": 1, "bees": 1})
    (tmp_path / "train.csv").write_text("id,breed\n0,ant\n")
    assert "train.csv next to the folders is not used" in read(tmp_path)[1]
