import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rootstock.data.layout import find_images
from rootstock.errors import DataError
from rootstock.tasks.single_label.task import SingleLabel
from tests.data.folders import photo, write_classes


def found(root):
    return {(entry.path, entry.target, entry.split) for entry in find_images(root).entries}


def test_class_folders_give_labels_and_no_splits(tmp_path):
    write_classes(tmp_path, {"ants": 1, "bees": 1})
    assert found(tmp_path) == {("ants/0.png", "ants", None), ("bees/0.png", "bees", None)}


def test_images_deeper_in_class_folder_belong_to_it(tmp_path):
    write_classes(tmp_path, {"ants": 1, "bees/small/wild": 1})
    assert ("bees/small/wild/0.png", "bees", None) in found(tmp_path)


def test_given_splits_are_honoured_under_their_usual_names(tmp_path):
    for name in ("train", "Validation", "test"):
        write_classes(tmp_path / name, {"ants": 1})
    assert {given for _, _, given in found(tmp_path)} == {"train", "val", "test"}


def test_a_class_may_be_called_train(tmp_path):
    write_classes(tmp_path, {"train": 1, "bus": 1})
    assert ("train/0.png", "train", None) in found(tmp_path)


def test_hidden_and_side_files_are_ignored(tmp_path):
    write_classes(tmp_path, {"ants": 1, "bees": 1, "__MACOSX": 1, ".cache": 1})
    for name in (".DS_Store", "._0.png", "notes.txt", "Thumbs.db", "labels.json"):
        (tmp_path / "ants" / name).write_bytes(b"x")
    assert len(found(tmp_path)) == 2


def test_hidden_and_side_folders_in_class_are_ignored(tmp_path):
    write_classes(tmp_path, {"ants": 1, "ants/.cache": 1, "ants/wild/__MACOSX": 1, "ants/wild": 1})
    assert {path for path, _, _ in found(tmp_path)} == {"ants/0.png", "ants/wild/0.png"}


def test_a_file_without_a_suffix_is_a_candidate(tmp_path):
    write_classes(tmp_path, {"ants": 1})
    (tmp_path / "ants" / "photo").write_bytes(photo(1))
    assert ("ants/photo", "ants", None) in found(tmp_path)


def test_files_next_to_class_folders_are_reported(tmp_path):
    write_classes(tmp_path / "train", {"ants": 1})
    write_classes(tmp_path, {"notes": 1, "train/empty": 0})
    (tmp_path / "cover.png").write_bytes(photo(2))
    warnings = "\n".join(find_images(tmp_path).warnings)
    assert "ignored 1 file next to the class folders: cover.png" in warnings
    assert "ignored: notes" in warnings
    assert "train/empty is empty" in warnings


def test_broken_link_next_to_classes_is_reported(tmp_path):
    write_classes(tmp_path, {"ants": 1, "bees": 1})
    (tmp_path / "wasps").symlink_to("/not/mounted")
    warnings = find_images(tmp_path).warnings
    assert warnings == ["ignored 1 broken link next to the class folders: wasps"]


def test_classes_in_names_of_files_are_pointed_out(tmp_path):
    for number in range(6):
        (tmp_path / f"cat.{number}.png").write_bytes(photo(number))
        (tmp_path / f"dog_{number}.png").write_bytes(photo(number))
    with pytest.raises(
        DataError, match="names begin with cat, dog: if these words are the classes"
    ):
        find_images(tmp_path)
    (tmp_path / "7.png").write_bytes(photo(7))
    with pytest.raises(DataError) as caught:
        find_images(tmp_path)
    assert caught.value.message.endswith("13 files but no class folders")


def test_classes_that_differ_only_in_case_warn(tmp_path):
    write_classes(tmp_path, {"Ants": 1, "ants": 1})
    texts = [entry.target for entry in find_images(tmp_path).entries]
    assert "'Ants' and 'ants' differ only in case" in SingleLabel().warn(texts)[0]


def test_a_csv_keeps_labels_as_they_are_written(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label,split\na.png,007,train\nb.png,1.0,\n")
    assert found(tmp_path / "labels.csv") == {
        ("a.png", "007", "train"),
        ("b.png", "1.0", None),
    }


def test_a_parquet_table_may_hold_numbers(tmp_path):
    table = pa.table({"path": ["a.png", "b.png"], "label": [3, 4]})
    pq.write_table(table, tmp_path / "labels.parquet")
    assert {label for _, label, _ in found(tmp_path / "labels.parquet")} == {"3", "4"}


def test_a_column_that_holds_lists_is_rejected(tmp_path):
    table = pa.table({"path": ["a.png", "b.png"], "label": [["ant"], ["bee"]]})
    pq.write_table(table, tmp_path / "labels.parquet")
    with pytest.raises(DataError, match=r"column label of .*labels\.parquet holds list<.*string>"):
        found(tmp_path / "labels.parquet")


def test_two_columns_of_one_name_are_rejected(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label,label\na.png,ant,bee\n")
    with pytest.raises(DataError, match=r"labels\.csv has several columns named label"):
        found(tmp_path / "labels.csv")
