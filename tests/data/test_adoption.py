"""An image that a service kept becomes an image of the data set, and its origin is noted."""

import pytest

from rootstock.data.adoption import adopt_image
from rootstock.data.label_corrections import FILE_NAME, read_corrections
from rootstock.errors import ArtifactError, DataError, ImageError
from tests.bundles import jpeg
from tests.data.folders import write_classes
from tests.data.test_broken_folders import index


@pytest.fixture
def root(tmp_path):
    return write_classes(tmp_path / "insects", {"ants": 12, "bees": 12})


def adopt(root, content, label="bees"):
    rows = index(root).images
    return adopt_image(root, rows, content, label, who="Ada", why="from the journal")


def test_the_next_index_has_the_image_and_knows_where_it_came_from(root):
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


def test_in_split_folders_it_goes_to_the_training_images(tmp_path):
    write_classes(tmp_path / "set/train", {"ants": 9, "bees": 9})
    write_classes(tmp_path / "set/test", {"ants": 3, "bees": 3}, seed=1)
    assert adopt(tmp_path / "set", jpeg(7)).parent == tmp_path / "set/train/bees"


def test_what_cannot_be_added_is_refused_and_leaves_nothing(root):
    files = sorted(root.rglob("*"))
    (root / "ants/0.png").read_bytes()
    with pytest.raises(DataError, match="already in the data: ants/0.png"):
        adopt(root, (root / "ants/0.png").read_bytes())
    with pytest.raises(DataError, match="no class 'wasps'"):
        adopt(root, jpeg(7), "wasps")
    with pytest.raises(ImageError):
        adopt(root, b"nonsense")
    table = root / "list.csv"
    with pytest.raises(DataError, match="is a table"):
        adopt_image(table, [], jpeg(7), "bees", who="Ada", why="")
    assert sorted(root.rglob("*")) == files


def test_without_its_note_the_image_is_not_added(root):
    (root / FILE_NAME).mkdir()
    files = sorted(root.rglob("*"))
    rows = index(write_classes(root.parent / "same", {"ants": 12, "bees": 12})).images
    with pytest.raises((ArtifactError, DataError)):
        adopt_image(root, rows, jpeg(7), "bees", who="Ada", why="")
    assert sorted(root.rglob("*")) == files
