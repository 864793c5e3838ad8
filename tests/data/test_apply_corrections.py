from dataclasses import replace

import pytest

from rootstock.data.label_corrections import ORIGINAL, REMOVE, Correction
from rootstock.data.manifest import REMOVED, Manifest
from rootstock.data.notices import describe_corrections, list_notices
from rootstock.errors import DataError
from tests.data.folders import photo, write_classes
from tests.data.test_broken_folders import index

TIME = "2026-11-30T09:00:00+00:00"


@pytest.fixture
def root(tmp_path):
    return write_classes(tmp_path / "images", {"ants": 20, "bees": 20})


def correct(row, new, who="Ada", old=None):
    return Correction(row.sha256, row.target if old is None else old, new, who, TIME)


def splits_of(manifest):
    return {row.path: (row.split, row.group) for row in manifest.images}


@pytest.fixture
def before(root):
    return index(root)


def of_class(manifest, label, split="train"):
    return [row for row in manifest.rows(split) if row.target == label]


def test_a_correction_changes_the_target_and_nothing_else(root, before):
    wrong = of_class(before, "ants")[0]
    after = index(root, corrections=[correct(wrong, "bees")])
    (row,) = (row for row in after.images if row.path == wrong.path)
    assert row == wrong._replace(target="bees", stratum="bees")
    assert [one for one in after.images if one.path != wrong.path] == [
        one for one in before.images if one.path != wrong.path
    ]
    assert after.originals == {wrong.path: "ants"}
    assert (root / wrong.path).exists()


def test_no_correction_moves_an_image_to_another_split(root, before):
    rows = before.rows()
    labels = {"ants": "bees", "bees": "ants"}
    corrections = [correct(row, labels[row.target]) for row in rows[:12]]
    corrections += [correct(row, REMOVE) for row in rows[12:16]]
    after = index(root, corrections=corrections)
    assert splits_of(after) == splits_of(before)
    assert splits_of(index(root, corrections=corrections, previous=before)) == splits_of(before)


def test_later_row_with_first_label_undoes_correction(root, before):
    row = before.rows()[0]
    there_and_back = [correct(row, "bees"), correct(row, "ants", old="bees")]
    assert index(root, corrections=there_and_back) == before


@pytest.mark.parametrize("new", ["bees", REMOVE])
def test_undone_correction_gives_the_label_of_the_folder(root, before, new):
    row = before.rows()[0]
    there_and_back = [correct(row, new), correct(row, ORIGINAL, old=new)]
    after = index(root, corrections=there_and_back[:1])
    assert after != before
    assert index(root, previous=after, corrections=there_and_back) == before


def test_removed_image_is_not_used_and_can_return(root, before):
    row = of_class(before, "bees", "val")[0]
    removal = correct(row, REMOVE)
    after = index(root, corrections=[removal])
    assert [(one.path, one.quarantine) for one in after.quarantined] == [(row.path, REMOVED)]
    assert len(after.rows()) == len(before.rows()) - 1
    assert list_notices(after) == []
    assert describe_corrections(after.summary()) == "1 image removed by corrections.csv"
    back = index(root, previous=after, corrections=[removal, correct(row, "bees", old=REMOVE)])
    assert back == before


def test_copies_of_the_same_bytes_follow(root):
    copies = [root / "ants/copy.png", root / "bees/copy.png"]
    for path in copies:
        path.write_bytes(photo(7000))
    row = next(row for row in index(root).images if row.path == "ants/copy.png")
    after = index(root, corrections=[correct(row, "wasps"), correct(row, "bees", old="wasps")])
    assert {row.target for row in after.images if "copy" in row.path} == {"bees"}


def test_a_new_class_is_allowed_and_said(root, before):
    rows = of_class(before, "ants")[:4]
    after = index(root, corrections=[correct(row, "wasps") for row in rows])
    assert after.strata == ["ants", "bees", "wasps"]
    assert "new names that only corrections.csv has: wasps" in list_notices(after)


def test_new_class_of_too_few_images_names_file(root, before):
    with pytest.raises(DataError, match=r"(?s)wasps \(1\).*only corrections.csv has: wasps"):
        index(root, corrections=[correct(before.rows()[0], "wasps")])


def test_a_class_may_be_corrected_away(root, before):
    (root / "ant").mkdir()
    (root / "ant/lone.png").write_bytes(photo(900))
    with pytest.raises(DataError, match=r"ant \(1\)"):
        index(root)
    assert len(of_class(before, "ants")) > 3
    stranger = replace(correct(before.rows()[0], "ants"), sha256=sha256(root / "ant/lone.png"))
    assert index(root, corrections=[stranger]).strata == ["ants", "bees"]
    assert index(root, corrections=[replace(stranger, new=REMOVE)]).strata == ["ants", "bees"]


def sha256(path):
    from rootstock.system.files import sha256_file

    return sha256_file(path)


def test_an_unknown_image_is_a_warning(root, before):
    stranger = replace(correct(before.rows()[0], "bees"), sha256="f" * 64)
    after = index(root, corrections=[stranger])
    assert after.images == before.images
    (notice,) = list_notices(after)
    assert "1 image of corrections.csv are not usable images" in notice


def test_conflict_is_said_and_later_label_used(root, before):
    row = of_class(before, "ants")[0]
    after = index(root, corrections=[correct(row, "bees"), correct(row, "ants", who="Ben")])
    (notice,) = list_notices(after)
    assert f"{row.path} (bees by Ada, ants by Ben)" in notice
    assert after.images == before.images


def test_an_empty_label_is_rejected_with_the_image(root, before):
    row = before.rows()[0]
    with pytest.raises(DataError, match=rf"gives {row.path} the label '  '"):
        index(root, corrections=[correct(row, "  ")])


def test_corrections_survive_disk_and_others_keep_their_bytes(root, before, tmp_path):
    after = index(root, corrections=[correct(before.rows()[0], "bees")])
    after.write(tmp_path / "after")
    assert Manifest.read(tmp_path / "after") == after
    before.write(tmp_path / "before")
    assert b"originals" not in (tmp_path / "before").read_bytes()
