"""Exact and near duplicates: what is the same picture must stay in one split.

Near duplicates have nearly the same grey thumbnail. Only pairs whose 64-bit hashes of it are close
are compared; the hash tells which of two neighbours in a row is the brighter (dHash, N. Krawetz
2013).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

Thumbnail = bytes
"""Grey uint8[16,16]; see `thumbnail`."""
SIDE_PIXELS = 16
"""Of a thumbnail, in pixels."""
MAX_DIFFERENCE = 4.0
"""Mean absolute difference of two thumbnails, in grey levels, up to which they are one picture."""
MIN_CONTRAST = 4.0
"""Pictures flatter than this (standard deviation in grey levels) have a hash of noise."""
_BLOCK_IMAGES = 8_192
_SIXTEEN_TO_NINE = np.array(
    [
        [max(0, min(9 * a + 9, 16 * b + 16) - max(9 * a, 16 * b)) for b in range(9)]
        for a in range(16)
    ],
    np.float32,
)
"""Ninths of each of 16 columns that lie in each of 9: whole numbers, so that sums are exact."""
_BIT_ORDER = 29 * np.arange(64) % 64
"""An order of the bits in which each quarter has some of all rows and columns.

Pictures with equal borders, such as digits, agree in the bits of whole rows; in this order they
still differ in each quarter, so that few pairs need a look.
"""


def thumbnail(levels: Image.Image) -> Thumbnail:
    """Of an image of Pillow's mode ``L``; nearly the same after re-encoding or resizing."""
    # Not BOX, which takes whole pixels only, and no `reducing_gap`: either moves the borders, and
    # copies of other sizes look less alike.
    return levels.resize((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.HAMMING).tobytes()


def group_duplicates(
    sha256s: Sequence[str], thumbs: Sequence[Thumbnail], *, bits: int
) -> np.ndarray:
    """Group ids int64[N]: equal for exact and near duplicates, one's own for all others.

    Two images are near duplicates when the hashes of their thumbnails differ in at most ``bits``
    bits and the thumbnails agree. An id comes from the content of the group's first member by
    sha256.
    """
    parent = list(range(len(sha256s)))

    def find(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    matched = set()
    for one, other in _matches(sha256s, thumbs, bits):
        matched |= {one, other}
        parent[find(one)] = find(other)
    # 15 hexadecimal digits are 60 bits, which fit a signed 64-bit column.
    ids = [int(sha[:15], 16) for sha in sha256s]
    roots = {index: find(index) for index in matched}
    smallest: dict[int, int] = {}
    for index, root in roots.items():
        smallest[root] = min(ids[index], smallest.get(root, ids[index]))
    for index, root in roots.items():
        ids[index] = smallest[root]
    return np.array(ids, dtype=np.int64)


def _matches(
    sha256s: Sequence[str], thumbs: Sequence[Thumbnail], bits: int
) -> Iterator[tuple[int, int]]:
    first_of: dict[str, int] = {}
    for index, sha in enumerate(sha256s):
        if first_of.setdefault(sha, index) != index:
            yield first_of[sha], index
    if not thumbs:
        return
    chosen = np.array(sorted(first_of.values()))
    grey = np.frombuffer(b"".join([thumbs[i] for i in chosen]), np.uint8)
    grey = grey.reshape(len(chosen), SIDE_PIXELS * SIDE_PIXELS)
    blocks = [grey[start : start + _BLOCK_IMAGES] for start in range(0, len(grey), _BLOCK_IMAGES)]
    contrasts = [block.astype(np.float32).std(axis=1) for block in blocks]
    vivid = np.concatenate(contrasts) >= MIN_CONTRAST
    hashes = np.concatenate([_hash(block) for block in blocks])[vivid]
    chosen, grey = chosen[vivid], grey[vivid]
    for first, second in _close_pairs(hashes, bits):
        for start in range(0, len(first), _BLOCK_IMAGES):
            a, b = first[start : start + _BLOCK_IMAGES], second[start : start + _BLOCK_IMAGES]
            apart = np.abs(grey[a].astype(np.float32) - grey[b])
            alike = apart.mean(axis=1) <= MAX_DIFFERENCE
            yield from zip(chosen[a[alike]].tolist(), chosen[b[alike]].tolist(), strict=True)


def _hash(thumbs: np.ndarray) -> np.ndarray:
    """uint64[N] of thumbnails uint8[N,256]: of 8 rows of 9 grey levels, which rise to the right."""
    rows = thumbs.reshape(-1, 8, 2, SIDE_PIXELS).mean(axis=2, dtype=np.float32)
    # To whole grey levels: what differs by less is noise, and flat parts shall have no order.
    small = np.rint(rows @ _SIXTEEN_TO_NINE / 16)
    bits = (small[:, :, 1:] > small[:, :, :-1]).reshape(-1, 64)
    return np.packbits(bits.take(_BIT_ORDER, axis=1), axis=1).view(">u8").ravel().astype(np.uint64)


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
