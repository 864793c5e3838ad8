"""Exact and near duplicates: what is the same picture must stay in one split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

THUMB = 16
"""Side of the grey thumbnail that confirms a match of hashes."""
MAX_DIFFERENCE = 4.0
"""Mean absolute difference of two thumbnails, in grey levels, up to which they are one picture."""
MIN_CONTRAST = 4.0
"""Pictures flatter than this (standard deviation in grey levels) have a hash of noise."""
_BLOCK = 512


@dataclass(frozen=True)
class Fingerprint:
    """A 64-bit difference hash, and a thumbnail uint8[256] that confirms matches."""

    hash: int
    thumb: bytes


def fingerprint(pixels: np.ndarray) -> Fingerprint:
    """Fingerprint of uint8[H,W,3]; nearly the same after re-encoding or resizing.

    The hash compares neighbours in a 9 x 8 grey thumbnail (dHash, N. Krawetz 2013).
    """
    grey = Image.fromarray(pixels).convert("L")
    small = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    thumb = grey.resize((THUMB, THUMB), Image.Resampling.BOX)
    return Fingerprint(int.from_bytes(np.packbits(bits).tobytes(), "big"), thumb.tobytes())


def group_duplicates(
    sha256s: Sequence[str], prints: Sequence[Fingerprint], *, bits: int
) -> np.ndarray:
    """Group ids int64[N]: equal for exact and near duplicates, one's own for all others.

    Two images are near duplicates when their hashes differ in at most ``bits`` bits and their
    thumbnails agree. An id comes from the content of the group's first member by sha256.
    """
    parent = list(range(len(sha256s)))

    def find(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for first, second in _matches(sha256s, prints, bits):
        parent[find(first)] = find(second)
    names: dict[int, str] = {}
    roots = [find(index) for index in range(len(sha256s))]
    for root, sha in zip(roots, sha256s, strict=True):
        names[root] = min(sha, names.get(root, sha))
    # 15 hexadecimal digits are 60 bits, which fit a signed 64-bit column.
    return np.array([int(names[root][:15], 16) for root in roots], dtype=np.int64)


def _matches(
    sha256s: Sequence[str], prints: Sequence[Fingerprint], bits: int
) -> Iterator[tuple[int, int]]:
    first_of: dict[str, int] = {}
    for index, sha in enumerate(sha256s):
        if first_of.setdefault(sha, index) != index:
            yield first_of[sha], index
    if not prints:
        return
    chosen = np.array(sorted(first_of.values()))
    thumbs = np.stack([np.frombuffer(prints[i].thumb, np.uint8) for i in chosen]).astype(np.float32)
    vivid = thumbs.std(axis=1) >= MIN_CONTRAST
    chosen, thumbs = chosen[vivid], thumbs[vivid]
    hashes = np.array([prints[i].hash for i in chosen], dtype=np.uint64)
    for bucket in _buckets(hashes, bits):
        for a, b in _close_pairs(bucket, hashes, thumbs, bits):
            yield int(chosen[a]), int(chosen[b])


def _buckets(hashes: np.ndarray, bits: int) -> Iterator[np.ndarray]:
    """Candidates for a match: hashes within ``bits`` bits agree in one of ``bits + 1`` bands."""
    edges = np.linspace(0, 64, bits + 2).astype(int)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        mask = (1 << int(high - low)) - 1
        keys = (hashes >> np.uint64(low)) & np.uint64(mask)
        members = defaultdict(list)
        for index, key in enumerate(keys.tolist()):
            members[key].append(index)
        yield from (np.array(group) for group in members.values() if len(group) > 1)


def _close_pairs(
    bucket: np.ndarray, hashes: np.ndarray, thumbs: np.ndarray, bits: int
) -> Iterator[tuple[int, int]]:
    for start in range(0, len(bucket), _BLOCK):
        block = bucket[start : start + _BLOCK]
        distance = np.bitwise_count(hashes[block][:, None] ^ hashes[bucket][None, :])
        for row, column in zip(*np.nonzero(distance <= bits), strict=True):
            a, b = block[row], bucket[column]
            if a < b and np.abs(thumbs[a] - thumbs[b]).mean() <= MAX_DIFFERENCE:
                yield a, b
