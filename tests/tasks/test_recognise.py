"""The task of the data: from the settings, or from the data."""

import pytest

from rootstock.cli.main import main
from rootstock.data.columns import ColumnRoles
from rootstock.errors import ConfigError, DataError
from rootstock.tasks.recognise import find_task
from tests.data.folders import write_classes


def find(root, *, name="auto", told=None):
    found = find_task(name, root, ColumnRoles(told or {}))
    return found.task.name, found.reason


def write(folder, text):
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"


@pytest.mark.parametrize(
    ("text", "told", "found"),
    [
        ("path,label\na,b\n", {}, ("single_label", "the column label")),
        ("path,label,age,sex\na,b,1,0\n", {}, ("single_label", "the column label")),
        ("file,species\na,b\n", {"path": "file", "label": "species"}, None),
    ],
)
def test_the_columns_of_a_table_show_the_task(tmp_path, text, told, found):
    assert find(write(tmp_path, text), told=told) == (
        found or ("single_label", "the column species")
    )


def test_class_folders_are_one_class_per_image(tmp_path):
    assert find(tmp_path) == ("single_label", "class folders")


def test_a_task_that_is_named_is_taken(tmp_path):
    assert find(write(tmp_path, "path,target\na,1\n"), name="single_label") == ("single_label", "")
    with pytest.raises(ConfigError, match="no task 'colour'"):
        find(tmp_path, name="colour")


def test_unclear_columns_are_rejected_with_a_hint(tmp_path):
    table = write(tmp_path, "path,remark\na,nice\n")
    with pytest.raises(DataError, match="no columns with labels.*are path, remark"):
        find(table)


def test_check_says_which_task_was_recognised_and_why(tmp_path, capsys):
    root = write_classes(tmp_path / "set", {"ant": 4, "bee": 4})
    main(["check", str(root), "--set", "data.workers=1"])
    assert "task: single_label, recognised by class folders" in capsys.readouterr().out
