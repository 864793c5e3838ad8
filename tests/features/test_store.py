import hashlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from rootstock.errors import StoreError
from rootstock.features.store import FeatureStore


def key(number) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def vectors(numbers, width=8) -> np.ndarray:
    """Rows that tell which key they belong to."""
    return np.stack([np.full(width, number % 1000, np.float16) for number in numbers])


@pytest.fixture
def space(tmp_path):
    return fresh(tmp_path)


def fresh(root):
    return FeatureStore(root).space(weights_sha256="w" * 64, preprocess_hash="p" * 64)


def test_what_is_appended_is_read_back_in_any_order(space):
    space.append([key(1), key(2)], {"last": vectors([1, 2])})
    space.append([key(3)], {"last": vectors([3])})
    found = space.read([key(3), key(1), key(3), key(2)], "last")
    assert found[:, 0].tolist() == [3, 1, 3, 2]
    assert found.dtype == np.float16


def test_taps_may_be_added_later(space):
    space.append([key(1)], {"last": vectors([1])})
    assert space.missing([key(1)], "block1") == [0]
    space.append([key(1)], {"block1": vectors([7], width=3)})
    assert space.read([key(1)], "block1").shape == (1, 3)


def test_a_new_reader_sees_what_others_wrote_meanwhile(space, tmp_path):
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


def test_a_damaged_row_is_found_and_counts_as_missing(space, tmp_path):
    space.append([key(n) for n in range(50)], {"last": vectors(range(50))})
    segment = next(space.folder.glob("*.arrow"))
    content = bytearray(segment.read_bytes())
    content[content.index(vectors([33]).tobytes())] ^= 1
    segment.write_bytes(content)
    reader = fresh(tmp_path)
    keys = [key(n) for n in range(50)]
    with pytest.raises(StoreError, match="1 rows of last in .* are damaged"):
        reader.read(keys, "last")
    assert reader.missing(keys, "last") == [33]


def test_what_is_stored_again_stands_above_the_older_row(space, tmp_path):
    for value in range(8):
        space.append([key(1)], {"last": vectors([value])})
    assert fresh(tmp_path).read([key(1)], "last")[0, 0] == 7


def test_a_file_that_is_no_segment_is_ignored_and_left(space):
    space.append([key(1)], {"last": vectors([1])})
    (space.folder / "foreign.arrow").write_bytes(b"not arrow")
    assert space.missing([key(1)], "last") == []
    assert (space.folder / "foreign.arrow").exists()


def test_a_full_disk_is_said_and_leaves_nothing_behind(space, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match=r"cannot be written to .*No space left(.|\n)*free some"):
        space.append([key(1)], {"last": vectors([1])})
    assert list(space.folder.iterdir()) == []


WRITER = """
import sys
from tests.features.test_store import fresh, key, vectors
from pathlib import Path
start = int(sys.argv[2])
space = fresh(Path(sys.argv[1]))
for first in range(start, start + 100_000, 20):
    numbers = range(first, first + 20)
    space.append([key(n) for n in numbers], {"last": vectors(numbers)})
    print(first, flush=True)
"""


def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path):
    random = np.random.default_rng(0)
    acknowledged: list[int] = []
    for attempt in range(6):
        # Two writers at once, killed at a random moment
        pair = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(tmp_path), str(10**6 * attempt + 10**5 * n)],
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": f"{os.getcwd()}/src:{os.getcwd()}"},
            )
            for n in (0, 5)
        ]
        assert pair[0].stdout.readline()
        time.sleep(random.uniform(0.0, 0.1))
        for process in pair:
            process.send_signal(signal.SIGKILL)
        for process in pair:
            lines = process.communicate()[0].splitlines()
            acknowledged += [int(line) for line in lines if line]
    space = fresh(tmp_path)
    numbers = [n for first in acknowledged for n in range(first, first + 20)]
    assert len(numbers) > 100
    assert (space.read([key(n) for n in numbers], "last") == vectors(numbers)).all()
