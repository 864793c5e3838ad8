"""A test split of the newest images, and groups from a column."""

import numpy as np
import pytest

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.data.entry import Entry
from rootstock.data.groups import name_groups
from rootstock.data.manifest import Manifest
from rootstock.data.temporal import split_off_newest
from rootstock.errors import DataError
from rootstock.workflow.index import index_images
from tests.data.folders import write_classes


def split(times, *, share=0.25, groups=None, splits=None):
    entries = [
        Entry(f"{number}.png", "a", given, {"when": time})
        for number, (time, given) in enumerate(
            zip(times, splits or [None] * len(times), strict=True)
        )
    ]
    groups = np.arange(len(times)) if groups is None else np.array(groups)
    return split_off_newest(entries, groups, column="when", share=share)


def list_tested(times, **options):
    return [row for row, name in enumerate(split(times, **options)) if name == "test"]


@pytest.mark.parametrize(
    "times",
    [
        ["2026-01-03", "2026-01-01", "2026-01-04T10:00:00+02:00", "2026-01-02"],
        ["9", "8", "10.5", "7"],
    ],
)
def test_the_newest_images_are_tested(times):
    assert list_tested(times) == [2]


def test_images_of_one_time_are_in_one_split():
    assert list_tested(["1", "3", "3", "2"]) == [1, 2]


def test_group_is_tested_if_its_newest_image_is():
    assert list_tested(["1", "2", "3", "4"], groups=[5, 6, 7, 5]) == [0, 3]


@pytest.mark.parametrize(
    ("times", "what"),
    [
        (["1", "noon"], "column when has the invalid time 'noon'"),
        (["1", ""], "column when has the invalid time ''"),
        (["1", "nan"], "invalid time 'nan'"),
        (["5", "5"], "would contain all images"),
    ],
)
def test_times_that_decide_nothing_are_rejected(times, what):
    with pytest.raises(DataError, match=what):
        split(times)


def test_given_test_split_and_time_are_rejected():
    with pytest.raises(DataError, match="data.time asks for one by time"):
        split(["1", "2"], splits=["test", None])


def test_column_names_groups_before_pattern_does():
    entries = [Entry("patient_1/a.png", "a", None, {"patient": "P7"})]
    assert name_groups("patient", entries) == ["P7"]
    assert name_groups("patient", [Entry("patient_1/a.png", "a")]) == ["patient_1"]
    with pytest.raises(DataError, match="no file matches.*the columns are patient"):
        name_groups("site", entries)


@pytest.fixture
def table(tmp_path):
    """Return sixteen images of two classes, four sites, and rising times."""
    root = write_classes(tmp_path / "set", {"ant": 8, "bee": 8})
    lines = ["path,label,site,when"]
    for number in range(8):
        for label in ("ant", "bee"):
            lines.append(f"{label}/{number}.png,{label},s{number // 2},2026-01-0{1 + number}")
    (root / "labels.csv").write_text("\n".join(lines))
    return root / "labels.csv"


def index(table, out, *more):
    settings = [f"data.root={table}", "data.min_per_class=2", "data.workers=1", *more]
    return index_images(load_config(None, overrides=settings), Paths(out))


def test_the_newest_images_are_the_test_split(table, tmp_path):
    manifest = index(table, tmp_path / "out", "data.time=when", "data.test_fraction=0.25")
    assert {row.facts["when"][-1] for row in manifest.rows("test")} == {"7", "8"}
    assert len(manifest.rows("test")) == 4
    assert manifest.rows("val")


def test_images_of_site_stay_in_one_split(table, tmp_path):
    manifest = index(table, tmp_path / "out", "data.group=site", "data.test_fraction=0.25")
    splits = {}
    for row in manifest.rows():
        splits.setdefault(row.facts["site"], set()).add(row.split)
    assert all(len(names) == 1 for names in splits.values())
    assert len({row.group for row in manifest.rows()}) == 4


def test_metadata_is_written_and_read(table, tmp_path):
    manifest = index(table, tmp_path / "out")
    again = Manifest.read(Paths(tmp_path / "out").manifest)
    assert again == manifest
    assert again.images[0].facts == {"site": "s0", "when": "2026-01-01"}


def test_a_folder_has_no_times(table, tmp_path):
    with pytest.raises(DataError, match="data.time is 'when', but .* is a folder"):
        index(table.parent, tmp_path / "out", "data.time=when")
