"""Tables as users bring them: how paths, labels, and splits are read."""

import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rootstock.data.layout import find_images
from rootstock.errors import DataError
from tests.data.folders import write_classes


@pytest.fixture
def root(tmp_path):
    return write_classes(tmp_path / "set", {"img/ant": 1, "img/bee": 1})


def read(root, text, *, name="labels.csv"):
    (root / name).write_text(text, encoding="utf-8")
    layout = find_images(root / name)
    return {entry.path: (entry.target, entry.split) for entry in layout.entries}, layout.warnings


def test_backslashes_are_read_as_separators(root):
    rows, warnings = read(root, "path,label\r\nimg\\ant\\0.png,ant\r\nimg\\bee\\0.png,bee\r\n")
    assert set(rows) == {"img/ant/0.png", "img/bee/0.png"}
    assert "2 paths spelt differently from the file names" in warnings[0]


def test_backslash_in_name_of_file_is_kept(root):
    (root / "a\\b.png").write_bytes((root / "img/ant/0.png").read_bytes())
    rows, warnings = read(root, "path,label\na\\b.png,ant\nimg/bee/0.png,bee\n")
    assert "a\\b.png" in rows
    assert not warnings


def test_absolute_paths_inside_the_folder_are_taken(root):
    rows, _ = read(root, f"path,label\n{root}/img/ant/0.png,ant\nimg/bee/0.png,bee\n")
    assert set(rows) == {"img/ant/0.png", "img/bee/0.png"}


@pytest.mark.parametrize("path", ["/home/bob/set/img/ant/0.png", "C:\\set\\img\\ant\\0.png"])
def test_path_of_other_machine_suggests_local_path(root, path):
    with pytest.raises(DataError, match=r"outside the table's(.|\n)*img/ant/0\.png, which exists"):
        read(root, f"path,label\n{path},ant\n")


@pytest.mark.parametrize(("listed", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_files_are_found_however_their_letters_are_composed(tmp_path, listed, on_disk):
    name = unicodedata.normalize(on_disk, "thé")
    write_classes(tmp_path, {f"{name}/{name}": 1})
    text = unicodedata.normalize(listed, "path,label\nthé/thé/0.png,thé\n")
    rows, warnings = read(tmp_path, text)
    assert rows == {f"{name}/{name}/0.png": (unicodedata.normalize("NFC", "thé"), None)}
    assert "how letters are composed" in warnings[0]


def test_files_are_found_though_case_differs(root):
    rows, _ = read(root, "path,label\nIMG/Ant/0.PNG,ant\n")
    assert set(rows) == {"img/ant/0.png"}


def test_case_decides_between_two_files(root):
    (root / "img/ant/0.PNG").write_bytes((root / "img/bee/0.png").read_bytes())
    rows, warnings = read(root, "path,label\nimg/ant/0.PNG,ant\nimg/ant/0.Png,bee\n")
    assert set(rows) == {"img/ant/0.PNG", "img/ant/0.Png"}
    assert "1 of 2 listed files not found" in warnings[0]


@pytest.mark.parametrize("listed", ["ant/0.png", "img/ant/0"])
def test_missing_file_suggests_similar_file(root, listed):
    (root / "0.png").write_bytes(b"x")
    _, warnings = read(root, f"path,label\n{listed},ant\n")
    assert f"the first: {root / listed}; " in warnings[0]
    assert "0.png exists" in warnings[0]


@pytest.mark.parametrize(
    ("cell", "split"), [("Training", "train"), ("dev", "val"), ("TST", "test")]
)
def test_splits_have_their_usual_names(root, cell, split):
    rows, _ = read(root, f"path,label,split\nimg/ant/0.png,ant,train\nimg/bee/0.png,bee,{cell}\n")
    assert rows["img/bee/0.png"] == ("bee", split)


@pytest.mark.parametrize(("name", "delimiter"), [("l.csv", ";"), ("l.csv", "\t"), ("l.tsv", "\t")])
def test_other_delimiters_are_read(root, name, delimiter):
    rows, _ = read(root, "path,label\nimg/ant/0.png,a\n".replace(",", delimiter), name=name)
    assert rows == {"img/ant/0.png": ("a", None)}


def test_labels_that_look_the_same_are_one(root):
    text = "path,label\nimg/ant/0.png,the\u0301 \nimg/bee/0.png,th\u00e9\n"
    assert {target for target, _ in read(root, text)[0].values()} == {"th\u00e9"}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([["ant"], ["bee"]], pa.list_(pa.string())),
        ([["ant"], ["bee"]], pa.list_(pa.string(), 1)),
        ([["ant"], ["bee"]], pa.large_list(pa.string())),
        ([{"a": 1}, {"a": 2}], pa.struct([("a", pa.int64())])),
        ([[("a", 1)], [("b", 2)]], pa.map_(pa.string(), pa.int64())),
        ([b"\xff", b"\xfe"], pa.binary()),
    ],
)
def test_non_text_column_is_rejected_by_type(root, values, kind):
    for name in ("label", "path"):
        columns = {"path": ["img/ant/0.png", "img/bee/0.png"], "label": ["a", "b"]}
        table = pa.table(columns | {name: pa.array(values, kind)})
        pq.write_table(table, root / "labels.parquet")
        with pytest.raises(DataError, match=rf"the column {name} of .*labels\.parquet holds "):
            find_images(root / "labels.parquet")


def test_missing_value_in_parquet_is_empty_label(root):
    pq.write_table(pa.table({"path": ["a.png"], "label": pa.nulls(1)}), root / "labels.parquet")
    with pytest.raises(DataError, match="row 1: path or label is empty"):
        find_images(root / "labels.parquet")


def test_url_is_not_a_path(root):
    with pytest.raises(DataError, match="row 1: 'https://x.org/a.png' is a URL"):
        read(root, "path,label\nhttps://x.org/a.png,a\n")


def test_blanks_after_delimiters_are_stripped(root):
    rows, _ = read(root, "path, label, split\nimg/ant/0.png, 007, train\n")
    assert rows == {"img/ant/0.png": ("007", "train")}


def test_empty_rows_at_the_end_are_ignored(root):
    rows, _ = read(root, "path,label,split\nimg/ant/0.png,ant,train\n,,\n, ,\n")
    assert rows == {"img/ant/0.png": ("ant", "train")}
    with pytest.raises(DataError, match="row 1: path or label is empty"):
        read(root, "path,label\n,\nimg/ant/0.png,ant\n")


def test_columns_are_known_in_any_case(root):
    rows, _ = read(root, "Path,LABEL,Split\nimg/ant/0.png,ant,train\n")
    assert rows == {"img/ant/0.png": ("ant", "train")}
    rows, _ = read(root, "path,Label,label\nimg/ant/0.png,wrong,ant\n")
    assert rows == {"img/ant/0.png": ("ant", None)}


@pytest.mark.parametrize(("name", "hint"), [("a.tar.gz", "unpack it"), ("a.txt", "class folders")])
def test_file_that_is_not_table_gets_hint(root, name, hint):
    (root / name).write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        find_images(root / name)
    assert hint in caught.value.hint
