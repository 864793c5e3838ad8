import contextlib
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from rootstock.data.inspect import CHUNK_IMAGES
from rootstock.data.manifest import Manifest
from rootstock.errors import ArtifactError, DataError
from tests.bundles import jpeg
from tests.data.folders import flip_two_bits, photo, write_classes
from tests.data.odd_images import ODD_IMAGES
from tests.data.test_broken_folders import index


@pytest.fixture
def root(tmp_path):
    return write_classes(tmp_path / "images", {"ants": 20, "bees": 20})


def test_every_image_is_one_row_with_its_facts(root):
    manifest = index(root)
    row = manifest.images[0]
    assert len(manifest.images) == 40
    assert (row.path, row.target, row.width, row.mode) == ("ants/0.png", "ants", 48, "RGB")
    assert len(row.sha256) == 64


def test_the_same_data_give_the_same_bytes(root, tmp_path):
    for name in ("first", "second"):
        index(root).write(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_processes_see_what_one_process_sees(tmp_path):
    root = write_classes(tmp_path, {"ants": 70, "bees": 70})
    assert index(root, workers=2) == index(root, workers=1)


def test_a_manifest_survives_the_disk(root, tmp_path):
    manifest = index(root)
    manifest.write(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet") == manifest


def test_odd_files_are_rows_with_their_reason(root):
    for number, odd in enumerate(ODD_IMAGES.values()):
        (root / "ants" / f"odd-{number}.jpg").write_bytes(odd.build())
    found = Counter(row.quarantine for row in index(root).images if "odd-" in row.path)
    expected = Counter(odd.outcome.replace("ok", "") for odd in ODD_IMAGES.values())
    assert found == expected


def test_quarantined_files_stay_on_disk_without_split(root):
    (root / "ants" / "broken.jpg").write_bytes(b"nonsense")
    manifest = index(root)
    assert [row.path for row in manifest.quarantined] == ["ants/broken.jpg"]
    assert manifest.quarantined[0].split == ""
    assert (root / "ants" / "broken.jpg").read_bytes() == b"nonsense"


def test_files_that_cannot_be_opened_are_quarantined(root):
    (root / "ants" / "gone.png").symlink_to(root / "nowhere.png")
    bad_name = os.fsencode(root / "ants") + b"/\xff\xfe.png"
    try:
        with open(bad_name, "wb") as file:
            file.write(photo(999))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert Counter(row.quarantine for row in index(root).quarantined) == {
        "missing": 1,
        "file-name": 1,
    }


def test_a_linked_image_is_followed(root, tmp_path):
    (tmp_path / "elsewhere.png").write_bytes(photo(777))
    (root / "ants" / "link.png").symlink_to(tmp_path / "elsewhere.png")
    assert "ants/link.png" in {row.path for row in index(root).rows()}


def test_copies_share_a_split_and_are_reported(root):
    for number in range(15):
        (root / "ants" / f"copy-{number}.png").write_bytes(photo(0))
    (root / "bees" / "wrong-label.png").write_bytes(photo(0))
    manifest = index(root)
    copies = [row for row in manifest.rows() if row.sha256 == manifest.images[0].sha256]
    assert len(copies) == 17
    assert len({row.split for row in copies}) == 1
    assert len(manifest.summary()["label_conflicts"]) == 1


def test_leaks_across_given_splits_are_reported(tmp_path):
    write_classes(tmp_path / "train", {"ants": 20, "bees": 20})
    write_classes(tmp_path / "test", {"ants": 5, "bees": 5}, seed=1)
    (tmp_path / "test/ants/leak.png").write_bytes(photo(0))
    leaks = index(tmp_path).summary()["leaks_across_given_splits"]
    assert leaks == [["test/ants/leak.png", "train/ants/0.png"]]


def test_a_class_without_training_images_cannot_be_learnt(tmp_path):
    write_classes(tmp_path / "train", {"ants": 20, "bees": 20})
    write_classes(tmp_path / "val", {"ants": 5, "bees": 5, "wasps": 5}, seed=1)
    with pytest.raises(DataError, match="no training image of wasps"):
        index(tmp_path)


def test_given_split_that_lacks_class_is_warned_of(tmp_path):
    write_classes(tmp_path / "train", {"ants": 20, "bees": 20})
    write_classes(tmp_path / "test", {"ants": 5}, seed=1)
    assert any("no image of bees is in the split test" in text for text in index(tmp_path).warnings)


def test_listed_file_that_is_not_there_is_quarantined(root):
    rows = "".join(f"ants/{n}.png,a\nbees/{n}.png,b\n" for n in range(5))
    (root / "labels.csv").write_text(f"path,label\nants/none.png,a\n{rows}")
    manifest = index(root / "labels.csv")
    assert [(row.path, row.quarantine) for row in manifest.quarantined] == [
        ("ants/none.png", "missing")
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is missing"), (b"rubbish", "is not a manifest")],
)
def test_bad_manifest_file_says_which_stage_to_run(tmp_path, content, message):
    if content is not None:
        (tmp_path / "m.parquet").write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{message}(.|\n)*run the stage `index`"):
        Manifest.read(tmp_path / "m.parquet")


@pytest.mark.parametrize("seed", range(40))
def test_manifest_with_flipped_bits_is_never_misread(tmp_path, seed):
    manifest = index(write_classes(tmp_path / "images", {"a": 5, "b": 5}))
    path = tmp_path / "m.parquet"
    manifest.write(path)
    flip_two_bits(path, seed=seed)
    with contextlib.suppress(ArtifactError):
        assert Manifest.read(path).images == manifest.images


def test_folder_in_place_of_manifest_is_reported(tmp_path):
    with pytest.raises(ArtifactError, match="is not a manifest"):
        Manifest.read(tmp_path)


def test_brain_scans_keep_their_copies_in_one_split(shared_data):
    manifest = index(shared_data("brain_mri"), workers=2)
    splits: dict[str, set[str]] = {}
    for row in manifest.rows():
        splits.setdefault(row.sha256, set()).add(row.split)
    assert len(manifest.rows()) == 253
    assert sum(1 for row in manifest.rows()) - len(splits) == 25
    assert all(len(found) == 1 for found in splits.values())


def test_script_without_main_guard_is_told_so(tmp_path):
    """Worker processes would run the script again and end; no image is at fault."""
    write_classes(tmp_path / "data", {"a": 40, "b": 40})
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from rootstock.data.limits import DecodeLimits\n"
        "from rootstock.data.inspect import inspect_images\n"
        f"paths = sorted(Path({str(tmp_path / 'data')!r}).rglob('*.png'))\n"
        "inspect_images(paths, limits=DecodeLimits(), workers=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "`if __name__ == '__main__':`" in done.stderr


DYING = """
import os
import sys
from pathlib import Path

from rootstock.data import inspect
from rootstock.data.limits import DecodeLimits

decode = inspect.decode_grey


def dying(content, *arguments, **named):
    if content.endswith(b"deadly"):
        os.kill(os.getpid(), 9)
    return decode(content, *arguments, **named)


inspect.decode_grey = dying
if __name__ == "__main__":
    paths = sorted(Path(sys.argv[1]).glob("*.jpg"))
    found = inspect.inspect_images(paths, limits=DecodeLimits(), workers=2)
    print([path.name for path, one in zip(paths, found, strict=True) if one.reason == "crashed"])
    print(sum(one.width > 0 for one in found))
else:
    with open(sys.argv[1] + "/started", "a") as file:
        file.write("x")
"""


def test_files_that_kill_their_process_cost_only_themselves(tmp_path):
    """A decoder may crash: processes that serve many images read the others."""
    photo = jpeg(0)
    for number in range(8 * CHUNK_IMAGES):
        deadly = b"deadly" if number in (3, 200, 201) else b""
        (tmp_path / f"{number:04}.jpg").write_bytes(photo + deadly)
    script = tmp_path / "script.py"
    script.write_text(DYING)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines() == [
        "['0003.jpg', '0200.jpg', '0201.jpg']",
        str(8 * CHUNK_IMAGES - 3),
    ]
    assert len((tmp_path / "started").read_text()) < 25


def test_the_summary_counts_classes_copies_and_faults(tmp_path):
    root = write_classes(tmp_path / "images", {"ants": 8, "bees": 6})
    (root / "ants" / "again.png").write_bytes(photo(1))
    (root / "bees" / "again.png").write_bytes(photo(2))
    (root / "bees" / "broken.png").write_bytes(b"")
    manifest = index(root)
    summary = manifest.summary()
    assert (summary["n_images"], summary["n_usable"]) == (17, 16)
    assert {label: sum(counts.values()) for label, counts in summary["classes"].items()} == {
        "ants": 9,
        "bees": 7,
    }
    for split in ("train", "val", "test"):
        total = sum(counts[split] for counts in summary["classes"].values())
        assert total == len(manifest.rows(split))
    assert summary["quarantined"] == [{"path": "bees/broken.png", "reason": "empty"}]
    assert summary["quarantine_reasons"] == {"empty": 1}
    groups = [["ants/1.png", "ants/again.png"], ["ants/2.png", "bees/again.png"]]
    assert summary["duplicate_groups"] == groups
    assert summary["label_conflicts"] == groups[1:]
    assert summary["leaks_across_given_splits"] == []


def test_hash_of_data_knows_images_labels_and_splits(tmp_path):
    root = write_classes(tmp_path / "images", {"ants": 8, "bees": 8})
    first = index(root).content_hash
    assert index(root).content_hash == first
    assert index(root, seed=1).content_hash != first
    (root / "ants/0.png").rename(root / "bees/ant.png")
    assert index(root).content_hash != first
    assert len(first) == 64


def test_the_hash_of_the_data_knows_the_task(tmp_path):
    manifest = index(write_classes(tmp_path / "images", {"ants": 8, "bees": 8}))
    assert replace(manifest, task="regression").content_hash != manifest.content_hash


def test_given_splits_are_noted(tmp_path):
    write_classes(tmp_path / "train", {"ants": 8, "bees": 8})
    write_classes(tmp_path / "test", {"ants": 4, "bees": 4}, seed=1)
    assert index(tmp_path).given_splits == ("test", "train")
