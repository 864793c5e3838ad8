import os
import time

import numpy as np
import pytest

from rootstock.data.manifest import ImageRow, Manifest
from rootstock.errors import StoreError
from rootstock.features.store import compaction as upkeep
from rootstock.features.store.compaction import collect, compact
from rootstock.features.store.store import FeatureStore
from tests.features.store.test_store import flip, segments
from tests.features.store.writers import features, fresh, key

KEYS = [key(number) for number in range(40)]


@pytest.fixture
def space(tmp_path):
    """Forty segments of one row each."""
    space = fresh(tmp_path)
    for name in KEYS:
        space.append([name], {"last": features([name])})
    return space


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path)


def manifest(keys, quarantine="") -> Manifest:
    return Manifest(
        tuple(
            ImageRow(f"{name}.png", name, 1, 8, 8, "RGB", "PNG", "a", "a", "train", 0, quarantine)
            for name in keys
        )
    )


def files(space, pattern) -> int:
    return len(list((space.folder / "last").glob(pattern)))


def fail(*_):
    raise OSError(28, "No space left on device")


def test_many_small_segments_become_one(space, tmp_path):
    assert compact(space) == 40
    assert len(segments(space)) == 1
    assert (fresh(tmp_path).read(KEYS, "last") == features(KEYS)).all()
    assert compact(fresh(tmp_path)) == 0


def test_few_new_segments_do_not_rewrite_large_one(space, tmp_path):
    compact(space)
    large = segments(space)[0]
    new = [key(1000 + number) for number in range(16)]
    for name in new:
        space.append([name], {"last": features([name])})
    assert compact(space) == 16
    assert large in segments(space)
    assert (fresh(tmp_path).read(KEYS + new, "last") == features(KEYS + new)).all()


def test_merged_segments_have_a_largest_size(space, tmp_path, monkeypatch):
    monkeypatch.setattr(upkeep, "MAX_ROWS", 15)
    compact(space)
    assert sorted(len(s.sums) for s in space.taps()[0].latest()) == [10, 15, 15]
    assert (fresh(tmp_path).read(KEYS, "last") == features(KEYS)).all()


def test_damaged_rows_are_not_carried_over(space, tmp_path):
    flip(segments(space)[7], features([KEYS[7]]))
    compact(fresh(tmp_path))
    assert fresh(tmp_path).missing(KEYS, "last", verify=True) == [7]


def test_older_intact_row_of_two_is_kept(tmp_path):
    space = fresh(tmp_path)
    for value in range(16):
        space.append(KEYS[:2], {"last": np.full((2, 8), value, np.float16)})
    damaged = segments(space)[0]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1  # the second row
    damaged.write_bytes(content)
    compact(fresh(tmp_path))
    assert len(segments(space)) == 1
    assert sorted(fresh(tmp_path).read(KEYS[:2], "last")[:, 0]) == [0, 1]


def test_reader_continues_while_segments_are_merged(space, tmp_path):
    reader = fresh(tmp_path)
    rows = reader.rows(KEYS, "last")
    compact(space, grace_s=0)
    compact(space, grace_s=0)
    assert files(space, "*.retired") == 0
    assert (rows.take(slice(None)) == features(KEYS)).all()
    assert (reader.read(KEYS, "last") == features(KEYS)).all()


def test_stop_between_merge_and_retirement_is_repaired(space, tmp_path, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(upkeep, "_retire", stop)
    with pytest.raises(KeyboardInterrupt):
        compact(space)
    monkeypatch.undo()
    assert (fresh(tmp_path).read(KEYS, "last") == features(KEYS)).all()
    compact(fresh(tmp_path))
    assert len(segments(space)) == 1


def test_full_disk_leaves_segments_as_they_are(space, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(os, "fsync", fail)
    assert compact(space) == 0
    assert "is not compacted" in caplog.text
    assert len(segments(space)) == 40


def test_what_no_manifest_needs_is_removed(space, store, tmp_path):
    compact(space)
    done = collect(store, [manifest(KEYS[:10]), manifest(KEYS[5:20])], grace_s=0)
    assert done.rows == 20
    assert fresh(tmp_path).missing(KEYS, "last") == list(range(20, 40))
    assert (fresh(tmp_path).read(KEYS[:20], "last") == features(KEYS[:20])).all()
    assert [files(space, pattern) for pattern in ("*.safetensors", "*.retired")] == [1, 0]


def test_without_manifests_nothing_is_needed(space, store, tmp_path):
    collect(store, [manifest(KEYS, quarantine="truncated")], grace_s=0)
    assert list((space.folder / "last").iterdir()) == []


def test_a_segment_with_little_waste_is_left(space, store):
    compact(space)
    before = segments(space)
    assert collect(store, [manifest(KEYS[:37])], grace_s=0).rows == 0
    assert segments(space) == before


def test_a_writers_fresh_segments_are_kept(space, store, tmp_path):
    assert collect(store, []).rows == 0
    assert fresh(tmp_path).missing(KEYS, "last") == []


def test_reader_continues_while_features_are_collected(space, store, tmp_path):
    reader = fresh(tmp_path)
    assert reader.missing(KEYS, "last") == []
    collect(store, [], grace_s=0)
    assert (reader.read(KEYS, "last") == features(KEYS)).all()
    assert fresh(tmp_path).missing(KEYS, "last") == list(range(40))


def test_leftovers_are_deleted_when_they_are_old(space, store):
    folder = space.folder / "last"
    old, young = folder / ".old.tmp", folder / ".young.tmp"
    truncated = segments(space)[0]
    os.truncate(truncated, 100)
    for path in (old, young):
        path.touch()
    for path in (old, truncated):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    assert collect(store, [manifest(KEYS)]).files == 1
    assert (old.exists(), young.exists(), truncated.exists()) == (False, True, False)
    assert files(space, "*.retired") == 1


def test_a_full_disk_is_said_when_collecting(space, store, monkeypatch):
    compact(space)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="No space left"):
        collect(store, [manifest(KEYS[:10])], grace_s=0)
    assert len(segments(space)) == 1
