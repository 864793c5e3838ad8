import io
import os
import time
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image

from rootstock.data import inspect as inspecting
from rootstock.data import inspection_cache as seen
from rootstock.data.limits import DecodeLimits
from tests.data.folders import flip_two_bits, photo, write_classes
from tests.data.test_broken_folders import index as index_folder


@pytest.fixture
def folder(tmp_path):
    """Ten images that were written an hour ago."""
    root = write_classes(tmp_path / "images", {"a": 5, "b": 5})
    for path in root.rglob("*.png"):
        age(path, 3600)
    return root


def age(path, seconds):
    """Set back the content's time; that of the entry cannot be set."""
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.fixture(autouse=True)
def _no_wait_for_the_clock(monkeypatch):
    monkeypatch.setattr(seen, "MIN_ENTRY_AGE_NS", 0)


@pytest.fixture
def read(monkeypatch):
    """Return the names of the files that were read."""
    names = []

    def spy(path, limits, _read=inspecting.inspect_image):
        names.append(Path(path).name)
        return _read(path, limits)

    monkeypatch.setattr(inspecting, "inspect_image", spy)
    return names


def index(root, **changes):
    return index_folder(root, **({"cache_file": root.parent / "seen.parquet"} | changes))


def test_only_new_and_changed_files_are_read_again(folder, read):
    first = index(folder)
    assert len(read) == 10
    read.clear()
    assert index(folder) == first
    assert read == []
    (folder / "a" / "new.png").write_bytes(photo(77))
    changed = sorted((folder / "b").glob("*.png"))[0]
    changed.write_bytes(photo(78))
    manifest = index(folder)
    assert sorted(read) == sorted(["new.png", changed.name])
    assert manifest == index(folder, cache_file=None)


@pytest.mark.parametrize("change", ["time", "size"])
def test_either_another_time_or_another_size_is_enough(folder, read, change):
    index(folder)
    read.clear()
    path = folder / "a" / "0.png"
    facts = path.stat()
    if change == "size":
        path.write_bytes(path.read_bytes() + b" ")
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    else:
        age(path, 1800)
    index(folder)
    assert read == ["0.png"]


def as_bitmap(path, seed):
    """Write an image whose size in bytes does not depend on its content."""
    Image.open(io.BytesIO(photo(seed))).save(path, "BMP")
    os.utime(path, (1_577_836_800, 1_577_836_800))


def test_files_that_change_places_take_their_content_along(folder, read):
    for number in range(3):
        as_bitmap(folder / f"a/bitmap{number}.bmp", 200 + number)
        as_bitmap(folder / f"b/bitmap{number}.bmp", 300 + number)
    index(folder)
    for number in range(3):
        one, other = (folder / f"{name}/bitmap{number}.bmp" for name in "ab")
        one.rename(folder / "aside")
        other.rename(one)
        (folder / "aside").rename(other)
    read.clear()
    assert index(folder) == index(folder, cache_file=None)
    assert len([name for name in read if name.startswith("bitmap")]) == 6 + 6


def test_replacement_with_equal_size_and_time_is_reread(folder, read):
    as_bitmap(folder / "a/bitmap.bmp", 200)
    index(folder)
    as_bitmap(folder / "a/bitmap.bmp", 300)
    read.clear()
    assert index(folder) == index(folder, cache_file=None)
    assert read[0] == "bitmap.bmp"


def test_vanished_image_does_not_affect_others(folder, read):
    index(folder)
    read.clear()
    (folder / "a" / "0.png").unlink()
    (folder / "a" / "0.png").symlink_to("nowhere.png")
    assert [row.quarantine for row in index(folder).quarantined] == ["missing"]
    assert read == ["0.png"]


def test_columns_are_fields_of_what_is_seen():
    assert seen._SCHEMA.names == ["path", *inspecting.Inspected._fields]


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_memory_changes_nothing(folder, seed):
    """Flip two bits, which a page's checksum or parser notices."""
    first = index(folder)
    flip_two_bits(folder.parent / "seen.parquet", seed=seed)
    assert index(folder) == first


def test_name_unfit_for_tables_does_not_affect_others(folder, read):
    (folder / "a" / os.fsdecode(b"\xff.png")).write_bytes(photo(77))
    age(folder / "a" / os.fsdecode(b"\xff.png"), 3600)
    first = index(folder)
    assert [row.quarantine for row in first.quarantined] == ["file-name"]
    read.clear()
    assert index(folder) == first
    assert len(read) == 1


def test_time_unfit_for_tables_does_not_affect_others(folder, read):
    os.utime(folder / "a" / "0.png", ns=(0, 2**63 + 10**9))
    first = index(folder)
    read.clear()
    assert index(folder) == first
    assert read == ["0.png"]


def test_file_filled_during_reading_is_read_again(folder, monkeypatch):
    """Its size and time, read afterwards, would be those of an unseen image."""
    path = folder / "a" / "late.png"
    path.touch()

    def read_then_fill(name, limits, _read=inspecting.read_file):
        try:
            return _read(name, limits)
        finally:
            if Path(name) == path:
                path.write_bytes(photo(77))
                age(path, 3600)

    monkeypatch.setattr(inspecting, "read_file", read_then_fill)
    assert [row.quarantine for row in index(folder).quarantined] == ["empty"]
    monkeypatch.undo()
    assert index(folder).quarantined == []


def test_pipe_is_set_aside_and_not_waited_for(folder):
    os.mkfifo(folder / "a" / "pipe.png")
    assert [row.quarantine for row in index(folder).quarantined] == ["unreadable"]


def test_file_written_moment_ago_is_read_again(folder, read):
    (folder / "a" / "new.png").write_bytes(photo(77))
    index(folder)
    read.clear()
    index(folder)
    assert read == ["new.png"]


def test_damaged_image_stays_in_quarantine_unread(folder, read):
    bad = folder / "a" / "bad.png"
    bad.write_bytes(photo(77)[:200])
    age(bad, 3600)
    first = index(folder)
    read.clear()
    assert index(folder) == first
    assert read == []
    assert [row.path for row in first.quarantined] == ["a/bad.png"]


@pytest.mark.parametrize("reason", ["limits", "another folder", "not Parquet"])
def test_results_under_other_rules_do_not_count(folder, read, reason, tmp_path):
    index(folder)
    memory = folder.parent / "seen.parquet"
    read.clear()
    if reason == "limits":
        index(folder, limits=DecodeLimits(max_bytes=999_999))
    elif reason == "another folder":
        other = folder.rename(tmp_path / "elsewhere")
        index(other, cache_file=memory)
    else:
        memory.write_bytes(b"PAR1 nonsense")
        index(folder)
    assert len(read) == 10


def test_memory_of_index_does_not_follow_pixels(tmp_path):
    """About half a kilobyte of facts is kept per image, never a picture."""

    def peak(name, count):
        root = write_classes(tmp_path / name, {"a": count, "b": count})
        tracemalloc.start()
        try:
            index_folder(root, workers=1)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = peak("few", 50), peak("many", 300)
    assert (many - few) / 500 < 4_000  # a picture of 48 x 48 has 6,912 bytes
