import hashlib

import numpy as np
import pytest
from safetensors.numpy import load_file

from rootstock.errors import StoreError
from rootstock.features.store.segment import Segment
from tests.features.store.writers import features, fresh, key

KEYS = sorted(key(number) for number in range(3))


@pytest.fixture
def path(tmp_path):
    """A segment of three rows."""
    fresh(tmp_path).append(KEYS, {"last": features(KEYS)})
    return next(tmp_path.rglob("*.safetensors"))


def readable(root) -> dict[str, np.ndarray]:
    """Return a new reader's result for each key, one by one."""
    space, found = fresh(root), {}
    for name in KEYS:
        try:
            found[name] = space.read([name], "last")
        except StoreError:
            assert space.missing([name], "last") == [0]
    return found


def test_a_segment_is_a_safetensors_file(path):
    tensors = load_file(path)
    assert [bytes(row).hex() for row in tensors["keys"]] == KEYS
    assert (tensors["values"] == features(KEYS)).all()
    assert (tensors["prefixes"] == [int(name[:16], 16) for name in KEYS]).all()


def test_file_name_identifies_its_content(path):
    tensors = load_file(path)
    content = tensors["keys"].tobytes() + tensors["sums"].tobytes()
    assert path.stem.endswith(f"-{hashlib.sha256(content).hexdigest()[:32]}")


def test_file_cut_short_at_any_byte_is_rejected(path):
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="it has (no header of a segment|.* instead of)"):
            Segment.open(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(ValueError, match=f"{len(content) + 1} bytes instead of {len(content)}"):
        Segment.open(path)


def test_no_flipped_byte_makes_a_wrong_row(path, tmp_path):
    content, expected = path.read_bytes(), dict(zip(KEYS, features(KEYS), strict=True))
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        for name, row in readable(tmp_path).items():
            assert (row == expected[name]).all(), position


def test_flipped_byte_costs_only_its_row(path, tmp_path):
    content = bytearray(path.read_bytes())
    content[content.index(features([KEYS[1]]).tobytes())] ^= 1
    path.write_bytes(content)
    assert list(readable(tmp_path)) == [KEYS[0], KEYS[2]]
