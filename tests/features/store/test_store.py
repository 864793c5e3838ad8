import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rootstock.errors import StoreError
from rootstock.features.store import store as module
from rootstock.features.store.compaction import compact
from rootstock.features.store.segment import SUFFIX
from rootstock.features.store.store import FeatureStore
from tests.features.store import writers
from tests.features.store.writers import ROWS, features, fresh, key, keys_from


def vectors(numbers, width=8) -> np.ndarray:
    """Return rows that identify their key."""
    return np.stack([np.full(width, number % 1000, np.float16) for number in numbers])


@pytest.fixture
def space(tmp_path):
    return fresh(tmp_path)


def segments(space, tap="last") -> list[Path]:
    return sorted((space.folder / tap).glob(f"*{SUFFIX}"))


def run(*arguments) -> subprocess.Popen:
    """A process of `writers`."""
    command = [sys.executable, writers.__file__, *map(str, arguments)]
    paths = f"{os.getcwd()}/src:{os.getcwd()}"
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths}
    )


def flip(path, row) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(row.tobytes())] ^= 1
    path.write_bytes(content)


def test_appended_rows_are_read_in_any_order(space):
    space.append([key(1), key(2)], {"last": vectors([1, 2])})
    space.append([key(3)], {"last": vectors([3])})
    found = space.read([key(3), key(1), key(3), key(2)], "last")
    assert found[:, 0].tolist() == [3, 1, 3, 2]
    assert found.dtype == np.float16


def test_nothing_asked_is_nothing_read(space):
    assert space.read([], "last").shape == (0, 0)
    space.append([], {"last": np.empty((0, 8), np.float16)})
    assert not space.folder.exists()


def test_rows_are_read_by_position_many_times(space):
    space.append([key(n) for n in range(5)], {"last": vectors(range(5))})
    space.append([key(n) for n in range(5, 9)], {"last": vectors(range(5, 9))})
    rows = space.rows([key(n) for n in range(9)], "last")
    for index in ([8, 0, 3], [1, 1], [7], []):
        assert rows.take(np.array(index, int))[:, :1].ravel().tolist() == index


def test_taps_may_be_added_later(space):
    space.append([key(1)], {"last": vectors([1])})
    assert space.missing([key(1)], "block1") == [0]
    space.append([key(1)], {"block1": vectors([7], width=3)})
    assert space.read([key(1)], "block1").shape == (1, 3)


def test_new_reader_sees_rows_of_other_writers(space, tmp_path):
    reader = fresh(tmp_path)
    assert reader.missing([key(1)], "last") == [0]
    space.append([key(1)], {"last": vectors([1])})
    assert reader.missing([key(1)], "last") == []


def test_other_weights_or_preprocessing_are_another_space(space, tmp_path):
    space.append([key(1)], {"last": vectors([1])})
    other = FeatureStore(tmp_path).space(weights_sha256="w" * 64, preprocess_hash="q" * 64)
    assert other.missing([key(1)], "last") == [0]


def test_missing_features_are_counted_in_the_error(space):
    space.append([key(1)], {"last": vectors([1])})
    with pytest.raises(StoreError, match=r"2 of 3 images have no features of last(.|\n)*again"):
        space.read([key(1), key(2), key(3)], "last")
    with pytest.raises(StoreError, match="1 of 1 images have no features of last"):
        space.checksums([key(2)], "last")


def test_damaged_row_is_found_and_counts_as_missing(space, tmp_path, caplog):
    keys = [key(n) for n in range(50)]
    space.append(keys, {"last": vectors(range(50))})
    flip(segments(space)[0], vectors([33]))
    reader = fresh(tmp_path)
    assert reader.missing(keys, "last") == []
    with pytest.raises(StoreError, match="1 of 50 images have no features .* or damaged ones"):
        reader.read(keys, "last")
    assert reader.missing(keys, "last") == [33]
    assert fresh(tmp_path).missing(keys, "last", verify=True) == [33]
    assert "1 damaged rows count as missing" in caplog.text


def test_damaged_row_found_by_position_is_error(space, tmp_path):
    keys = [key(n) for n in range(5)]
    space.append(keys, {"last": vectors(range(5))})
    flip(segments(space)[0], vectors([3]))
    rows = fresh(tmp_path).rows(keys, "last")
    assert rows.take(np.array([2, 4]))[:, 0].tolist() == [2, 4]
    with pytest.raises(StoreError, match="rows of .* are damaged"):
        rows.take(np.array([2, 3]))


def test_older_intact_row_of_two_is_read(space, tmp_path):
    for value in range(3):
        space.append([key(1)], {"last": vectors([value])})
    assert fresh(tmp_path).read([key(1)], "last")[0, 0] == 0
    flip(segments(space)[0], vectors([0]))
    assert fresh(tmp_path).read([key(1)], "last")[0, 0] == 1


def test_unknown_file_is_ignored_and_kept(space, caplog):
    space.append([key(1)], {"last": vectors([1])})
    foreign = space.folder / "last" / f"{0:016x}-foreign{SUFFIX}"
    foreign.write_bytes(b"not a segment")
    assert space.missing([key(1), key(2)], "last") == [1]
    assert "is not a feature segment and is ignored: it has no header" in caplog.text
    assert foreign.exists()


def test_files_of_the_former_format_are_ignored(space):
    space.append([key(1)], {"last": vectors([1])})
    (space.folder / "0123456789abcdef.arrow").write_bytes(b"ARROW1")
    assert space.missing([key(1), key(2)], "last") == [1]
    assert [tap.folder.name for tap in space.taps()] == ["last"]


def test_full_disk_is_said_and_leaves_nothing_behind(space, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match=r"cannot be written to .*No space left(.|\n)*free some"):
        space.append([key(1)], {"last": vectors([1])})
    assert list((space.folder / "last").iterdir()) == []


def test_a_store_below_a_file_is_rejected(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written to .*Not a directory"):
        fresh(tmp_path / "file").append([key(1)], {"last": vectors([1])})


def test_segment_merged_during_opening_loses_nothing(space, tmp_path, monkeypatch):
    keys = [key(n) for n in range(16)]
    for name in keys:
        space.append([name], {"last": features([name])})
    opened = []

    def compact_first(path, *, _open=module._open):
        opened.append(path)
        if len(opened) == 1:
            assert compact(fresh(tmp_path)) == 16
        return _open(path)

    monkeypatch.setattr(module, "_open", compact_first)
    assert (fresh(tmp_path).read(keys, "last") == features(keys)).all()


def test_concurrent_writers_and_readers_do_not_interfere(tmp_path):
    processes = [run("append", tmp_path, n * 10**6, 25) for n in range(4)]
    acknowledged, reader = [], fresh(tmp_path)
    for process in processes:
        for line in process.stdout:
            acknowledged += keys_from(int(line))
            assert (
                reader.read(acknowledged[-ROWS:], "last") == features(acknowledged[-ROWS:])
            ).all()
            if len(acknowledged) % (10 * ROWS) == 0:
                compact(fresh(tmp_path))
        assert process.wait() == 0
    assert len(acknowledged) == 4 * 25 * ROWS
    assert (fresh(tmp_path).read(acknowledged, "last") == features(acknowledged)).all()
    assert len(segments(reader)) < 50


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_writers_lose_nothing_and_leave_nothing_wrong(tmp_path, kills):
    killing = run("kill", tmp_path, kills, 7)
    starts = [int(line) for line in killing.communicate()[0].splitlines()]
    assert killing.returncode == 0
    assert len(starts) > kills / 10  # a fast machine kills most writers before their first row
    space = fresh(tmp_path)
    acknowledged = [name for start in starts for name in keys_from(start)]
    assert (space.read(acknowledged, "last") == features(acknowledged)).all()
    # Also segments that were finished and not yet acknowledged
    for segment in space.taps()[0].latest():
        keys = [bytes(name).ljust(32, b"\0").hex() for name in segment.index.keys]
        assert (segment.values == features(keys)).all()
    # Some of the many kills interrupted work.
    assert kills < 200 or list((space.folder / "last").glob(".*.tmp"))


MEMORY = """
import sys, numpy as np
from tests.features.store.writers import fresh, key
space = fresh(sys.argv[1])
keys = [key(n) for n in range(100)]
assert space.missing(keys, "last") == []
space.read(keys, "last")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("RssAnon")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_number_of_images(tmp_path):
    kilobytes = []
    for n in (1_000, 100_000):
        space = fresh(tmp_path / str(n))
        keys = [key(number) for number in range(n)]
        space.append(keys, {"last": np.zeros((n, 4), np.float16)})
        paths = f"{os.getcwd()}/src:{os.getcwd()}"
        command = [sys.executable, "-c", MEMORY, str(tmp_path / str(n))]
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, check=True
        )
        kilobytes.append(int(done.stdout))
    # A dict of 99,000 keys would take 13 MB.
    assert kilobytes[1] - kilobytes[0] < 3_000
