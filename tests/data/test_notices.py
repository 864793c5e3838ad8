from rootstock.data.notices import list_notices
from tests.data.folders import photo, write_classes
from tests.data.test_broken_folders import index


def test_sound_data_give_no_notices(tmp_path):
    assert list_notices(index(write_classes(tmp_path, {"ants": 8, "bees": 8}))) == []


def test_conflicts_leaks_and_unusable_files_are_noticed(tmp_path):
    write_classes(tmp_path / "train", {"ants": 8, "bees": 8})
    write_classes(tmp_path / "test", {"ants": 4, "bees": 4}, seed=1)
    (tmp_path / "test/bees/again.png").write_bytes(photo(0))
    (tmp_path / "train/ants/broken.png").write_bytes(b"")
    assert list_notices(index(tmp_path)) == [
        "1 file unusable (1 empty): train/ants/broken.png",
        "1 group of copies with more than one label, such as test/bees/again.png and "
        "train/ants/0.png",
        "1 group of copies in more than one split, such as "
        "test/bees/again.png and train/ants/0.png",
    ]
