"""An image that a service stored becomes an image of the data set, with its origin."""

import pytest

from rootstock.data.adoption import adopt_image
from rootstock.data.build_manifest import build_manifest
from rootstock.data.label_corrections import (
    FILE_NAME,
    REMOVE,
    Correction,
    append_corrections,
    read_corrections,
    read_corrections_of,
    stamp_time,
)
from rootstock.data.layout import find_images
from rootstock.errors import ArtifactError, DataError, ImageError
from rootstock.tasks import get_task
from tests.bundles import jpeg
from tests.data.folders import photo, write_classes
from tests.data.test_broken_folders import SETTINGS, index


@pytest.fixture
def root(tmp_path):
    return write_classes(tmp_path / "insects", {"ants": 12, "bees": 12})


def adopt(root, content, label="bees"):
    rows = index(root).images
    return adopt_image(root, rows, content, label, who="Ada", why="from the journal")


def test_next_index_has_the_image_and_its_origin(root):
    before = {path: path.read_bytes() for path in root.rglob("*.png")}
    added = adopt(root, jpeg(7))
    assert added.parent == root / "bees"
    assert added.suffix == ".jpg"
    assert {path: path.read_bytes() for path in before} == before
    manifest = index(root)
    (row,) = [row for row in manifest.rows() if row.path == f"bees/{added.name}"]
    assert row.target == "bees"
    (note,) = read_corrections(root / FILE_NAME)
    assert (note.sha256, note.old, note.new) == (row.sha256, "", "bees")
    assert (note.who, note.why) == ("Ada", "from the journal")


def test_in_split_folders_it_goes_to_training_images(tmp_path):
    write_classes(tmp_path / "set/train", {"ants": 9, "bees": 9})
    write_classes(tmp_path / "set/test", {"ants": 3, "bees": 3}, seed=1)
    assert adopt(tmp_path / "set", jpeg(7)).parent == tmp_path / "set/train/bees"


def test_new_class_gets_folder_next_to_others(root):
    rows = index(root).images
    for seed in range(3):
        added = adopt_image(root, rows, jpeg(seed), "wasps", who="Ada", why="")
        assert added.parent == root / "wasps"
    targets = [row.target for row in index(root).rows()]
    assert targets.count("wasps") == 3


@pytest.mark.parametrize("label", ["a/b", "..", ".git", "test", "@eaDir"])
def test_name_that_no_class_folder_can_have_is_rejected(root, label):
    files = sorted(root.rglob("*"))
    with pytest.raises(DataError, match="a folder cannot be called"):
        adopt(root, jpeg(7), label)
    assert sorted(root.rglob("*")) == files


def test_unusable_image_is_rejected_and_leaves_nothing(root):
    files = sorted(root.rglob("*"))
    with pytest.raises(DataError, match="already in the data: ants/0.png"):
        adopt(root, (root / "ants/0.png").read_bytes())
    with pytest.raises(ImageError):
        adopt(root, b"nonsense")
    assert sorted(root.rglob("*")) == files


def test_without_its_note_the_image_is_not_added(root):
    (root / FILE_NAME).mkdir()
    files = sorted(root.rglob("*"))
    rows = index(write_classes(root.parent / "same", {"ants": 12, "bees": 12})).images
    with pytest.raises((ArtifactError, DataError)):
        adopt_image(root, rows, jpeg(7), "bees", who="Ada", why="")
    assert sorted(root.rglob("*")) == files


TABLES = {
    "single_label": ("label", ["a", "b"], "b"),
    "multi_label": ("labels", ["a;b", "b", "a"], '["a", "b"]'),
    "regression": ("target", ["1.5", "2.5", "3.5"], "7.25"),
    "localisation": (
        "label,x,y,width,height",
        ["a,4,4,20,20", "b,8,8,10,30"],
        '["b", 0.1, 0.2, 0.5, 0.9]',
    ),
}


def write_table(folder, columns, cells, extra=("", "")):
    """Write 24 images and their table with one more column."""
    folder.mkdir()
    lines = [f"path,{columns}{extra[0]}"]
    for number in range(24):
        (folder / f"{number}.png").write_bytes(photo(number))
        lines.append(f"{number}.png,{cells[number % len(cells)]}{extra[1]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


def index_table(table, task, **changes):
    rules, settings = (
        get_task(task),
        SETTINGS | {"corrections": read_corrections_of(table)} | changes,
    )
    return build_manifest(find_images(table, target=rules), rules=rules, **settings)


@pytest.mark.parametrize("task", TABLES)
def test_image_added_to_table_is_indexed_with_its_label(tmp_path, task):
    columns, cells, label = TABLES[task]
    table = write_table(tmp_path / "set", columns, cells)
    before, content = table.read_bytes(), jpeg(7)
    manifest = index_table(table, task)
    added = adopt_image(table, manifest.images, content, label, who="Ada", why="pool/7.jpg")
    assert added.parent == table.parent / "added"
    assert table.read_bytes() == before
    after = index_table(table, task, previous=manifest)
    (row,) = [row for row in after.rows() if row.path == f"added/{added.name}"]
    assert row.target == label
    assert not after.originals
    splits = {row.path: row.split for row in manifest.rows()}
    assert splits.items() <= {row.path: row.split for row in after.rows()}.items()


def test_added_image_that_was_taken_out_again_is_not_used(tmp_path):
    columns, cells, label = TABLES["single_label"]
    table = write_table(tmp_path / "set", columns, cells)
    added = adopt_image(table, [], jpeg(7), label, who="Ada", why="")
    digest = read_corrections(table.parent / FILE_NAME)[0].sha256
    undone = Correction(digest, label, REMOVE, "Ada", stamp_time())
    append_corrections(table.parent / FILE_NAME, [undone])
    manifest = index_table(table, "single_label")
    assert f"added/{added.name}" not in {row.path for row in manifest.rows()}


def test_added_image_has_no_group_or_time(tmp_path):
    columns, cells, label = TABLES["single_label"]
    table = write_table(tmp_path / "set", columns, cells, (",when", ",2026-01-01"))
    text = table.read_text().replace("23.png,b,2026-01-01", "23.png,b,2026-02-01")
    table.write_text(text)
    adopt_image(table, [], jpeg(7), label, who="Ada", why="")
    manifest = index_table(table, "single_label", time="when", group="when", test_fraction=0.05)
    (row,) = [row for row in manifest.rows() if row.path.startswith("added/")]
    assert row.split != "test"


def test_a_file_without_its_row_is_a_warning(tmp_path):
    columns, cells, _ = TABLES["single_label"]
    table = write_table(tmp_path / "set", columns, cells)
    (table.parent / "added").mkdir()
    (table.parent / "added/added-0123456789abcdef.png").write_bytes(photo(99))
    (warning,) = find_images(table).warnings
    assert "1 added image without a row in corrections.csv" in warning
