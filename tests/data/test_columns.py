"""Columns of a table: their names, their content, and metadata next to the target."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rootstock.data.columns import MAX_METADATA_COLUMNS, ColumnRoles, Columns
from rootstock.data.layout import find_images
from rootstock.data.target_rules import PlainReader
from rootstock.errors import DataError
from tests.data.folders import write_classes


@pytest.fixture
def root(tmp_path):
    return write_classes(tmp_path / "set", {"ant": 1, "bee": 1})


def write(root, text, name="labels.csv"):
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def find(table, told=None, *, aside=(), target=None):
    roles = ColumnRoles(told or {}, aside)
    return find_images(table, target=target or PlainReader(), roles=roles).entries


def test_columns_may_have_other_names(root):
    table = write(root, "file,label,species,fold\nant/0.png,1,ant,train\nbee/0.png,2,bee,test\n")
    entries = find(table, {"path": "file", "label": "species", "split": "fold"})
    assert [(one.path, one.target, one.split) for one in entries] == [
        ("ant/0.png", "ant", "train"),
        ("bee/0.png", "bee", "test"),
    ]
    assert entries[0].metadata == {"label": "1"}


def test_missing_configured_column_lists_existing_columns(root):
    table = write(root, "path,label\nant/0.png,ant\n")
    with pytest.raises(DataError, match="no column species for label; its columns are path, label"):
        find(table, {"label": "species"})


def test_further_columns_are_kept_as_metadata(root):
    table = write(root, "path,site,label,age\nant/0.png, north ,ant,7\nbee/0.png,,bee,007\n")
    facts = [dict(entry.metadata) for entry in find(table)]
    assert facts == [{"site": "north", "age": "7"}, {"site": "", "age": "007"}]


def test_binary_or_excess_columns_are_not_metadata(root):
    cells = {"path": ["ant/0.png"], "label": ["ant"], "vector": [[1.0, 2.0]]}
    more = {f"c{number}": ["x"] for number in range(MAX_METADATA_COLUMNS + 5)}
    pq.write_table(pa.table(cells | more | {"site": ["north"]}), root / "labels.parquet")
    layout = find_images(root / "labels.parquet", roles=ColumnRoles(aside=["site"]))
    assert len(layout.entries[0].metadata) == MAX_METADATA_COLUMNS
    assert layout.entries[0].metadata["site"] == "north"
    assert "vector" not in layout.entries[0].metadata
    assert "the first 64 are kept" in layout.warnings[0]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["0", "1", "1"], "binary"),
        (["True", "false", "TRUE"], "binary"),
        (["0", "1"] * 9 + ["0", "2"], "binary"),
        (["1.5", "-2e3", "0"], "number"),
        (["1.5"] * 19 + ["n/a"], "number"),
        (["a", "1", "2"], "text"),
        ([True, False], "binary"),
        ([3, 4], "number"),
        ([["a"], []], "list"),
    ],
)
def test_column_kind_is_that_of_nearly_all_cells(tmp_path, cells, kind):
    table = pa.table({"path": ["x"] * len(cells), "c": cells})
    assert Columns(tmp_path / "t.parquet", table).kind("c") == kind


def test_several_columns_are_joined_as_a_list(root):
    table = write(root, "path,x,y\nant/0.png,1,2\n")
    [entry] = find(table, target=PlainReader(("x", "y")))
    assert json.loads(entry.target) == ["1", "2"]


def test_columns_set_aside_hold_no_target(root):
    table = write(root, "path,site,when,a,b\nant/0.png,n,2026,1,0\n")
    columns = Columns.read(table, ColumnRoles(aside=["site", "when"]))
    assert columns.unnamed == ("a", "b")
