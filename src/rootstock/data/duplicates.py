"""Exact and near duplicates: what is the same picture must stay in one split."""

from __future__ import annotations

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
_BLOCK = 8_192


@dataclass(frozen=True)
class Fingerprint:
    """A 64-bit difference hash, and a thumbnail uint8[256] that confirms matches."""

    hash: int
    thumb: bytes


def fingerprint(picture: Image.Image) -> Fingerprint:
    """Fingerprint of an RGB image; nearly the same after re-encoding or resizing.

    The hash compares neighbours in a 9 x 8 grey thumbnail (dHash, N. Krawetz 2013).
    """
    grey = picture.convert("L")
    # Bytes directly: numpy's way to an image is most of the time for a small one
    small = np.frombuffer(grey.resize((9, 8), Image.Resampling.BOX).tobytes(), np.uint8)
    small = small.reshape(8, 9)
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
    thumbs = np.frombuffer(b"".join([prints[i].thumb for i in chosen]), np.uint8)
    thumbs = thumbs.reshape(len(chosen), -1)
    starts = range(0, len(thumbs), _BLOCK)
    contrasts = [thumbs[i : i + _BLOCK].astype(np.float32).std(axis=1) for i in starts]
    vivid = np.concatenate(contrasts) >= MIN_CONTRAST
    chosen, thumbs = chosen[vivid], thumbs[vivid]
    hashes = np.array([prints[i].hash for i in chosen], dtype=np.uint64)
    for first, second in _close_pairs(hashes, bits):
        for start in range(0, len(first), _BLOCK):
            a, b = first[start : start + _BLOCK], second[start : start + _BLOCK]
            apart = np.abs(thumbs[a].astype(np.float32) - thumbs[b])
            alike = apart.mean(axis=1) <= MAX_DIFFERENCE
            yield from zip(chosen[a[alike]].tolist(), chosen[b[alike]].tolist(), strict=True)


def _close_pairs(hashes: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions int64[M], int64[M] of hashes that differ in at most ``bits`` bits.

    Such hashes agree in one of ``bits + 1`` bands. In the order of a band's values, equal ones
    lie side by side, and each step pairs every hash with the one so many places further on.
    """
    edges = np.linspace(0, 64, bits + 2).astype(int)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        values = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(values, kind="stable")
        values, places = values[order], np.arange(len(order))
        for step in range(1, len(order)):
            places = places[places + step < len(order)]
            places = places[values[places] == values[places + step]]
            if not len(places):
                break
            first, second = order[places], order[places + step]
            close = np.bitwise_count(hashes[first] ^ hashes[second]) <= bits
            yield first[close], second[close]
