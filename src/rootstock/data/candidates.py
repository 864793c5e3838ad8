"""Candidates for copies: pairs of thumbnails that agree, also turned or mirrored.

Only pairs with similar 64-bit hashes are compared; the hash records which of two neighbours in a
row is brighter (dHash, N. Krawetz 2013). If very many pictures look the same, each is compared
only with a few of the nearest, so the work grows with the number of images and not with the
number of pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

Thumbnail = bytes
"""Grey uint8[16,16]."""
SIDE_PIXELS = 16
"""Side of a thumbnail, in pixels."""
MAX_DIFFERENCE = 4.0
"""Largest mean absolute difference of two thumbnails, in grey levels, that makes a candidate."""
MIN_CONTRAST = 4.0
"""Pictures with a smaller standard deviation, in grey levels, have a hash of noise."""
TURNS = (0, 1, 2, 4, 5, 6, 7)
"""Ways to turn the second of two pictures; see `turn`. In the third, the roles are exchanged."""
WINDOW_IMAGES = 16
"""Pictures with equal bits that a picture is compared with, the nearest in brightness first."""
MAX_VERIFIED_PAIRS = 4
"""Candidates per picture whose pixels are compared, the nearest first."""
_BLOCK_IMAGES = 8_192
_KEPT_PAIRS = 1_000_000
_SIXTEEN_TO_NINE = np.array(
    [
        [max(0, min(9 * a + 9, 16 * b + 16) - max(9 * a, 16 * b)) for b in range(9)]
        for a in range(16)
    ],
    np.float32,
)
"""Ninths of each of 16 columns that fall in each of 9: whole numbers, so that sums are exact."""
_BIT_ORDER = 29 * np.arange(64) % 64
"""An order of the bits in which each quarter contains bits of all rows and columns.

Pictures with equal borders, such as digits, have the same bits in whole rows; in this order they
still differ in each quarter, so that few pairs must be compared.
"""
_SIGNS = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), (SIDE_PIXELS**2, 8))
"""Signs for sums of grey levels that are nearly equal for copies; the first for each quarter."""


class Pairs(NamedTuple):
    """Candidates: picture ``first`` int64[M] may be ``second`` int64[M] after ``turn`` int64[M].

    ``apart`` float32[M] is the mean absolute difference of their thumbnails.
    """

    first: np.ndarray
    second: np.ndarray
    turn: np.ndarray
    apart: np.ndarray


class Thumbnails(NamedTuple):
    """Vivid thumbnails ``grey`` uint8[N,256], the numbers of their images and of their strata."""

    grey: np.ndarray
    numbers: np.ndarray
    strata: np.ndarray

    @classmethod
    def of(
        cls, thumbs: Sequence[Thumbnail], numbers: np.ndarray, strata: Sequence[str] | None
    ) -> Thumbnails:
        grey = np.frombuffer(b"".join(thumbs), np.uint8).reshape(len(thumbs), SIDE_PIXELS**2)
        starts = range(0, len(grey), _BLOCK_IMAGES)
        blocks = [grey[start : start + _BLOCK_IMAGES] for start in starts]
        contrasts = [block.astype(np.float32).std(axis=1) for block in blocks]
        vivid = np.concatenate(contrasts) >= MIN_CONTRAST
        codes = np.zeros(len(grey), np.int64)
        if strata is not None:
            _, codes = np.unique([strata[i] for i in numbers], return_inverse=True)
        return cls(grey[vivid], numbers[vivid], codes[vivid])


def turn(pictures: np.ndarray, way: int) -> np.ndarray:
    """Return square pictures [N,S,S], mirrored if ``way`` is 4 or more, in ``way % 4`` quarters."""
    return np.rot90(pictures[..., ::-1] if way >= 4 else pictures, way % 4, axes=(1, 2))


def find_candidates(pictures: Thumbnails, bits: int) -> Pairs:
    """Return pairs whose hashes differ in at most ``bits`` bits and whose thumbnails agree.

    Pairs that are not among the nearest of either picture are left out. Pictures of different
    strata are compared unturned: an arrow to the left is not a copy of an arrow to the right.
    """
    return _nearest(_candidates(pictures, bits), len(pictures.grey))


def _nearest(found: Iterator[Pairs], n_rows: int) -> Pairs:
    """Return the pairs that are among the nearest of either picture."""
    nothing = np.empty(0, np.int64)
    best = Pairs(nothing, nothing, nothing, np.empty(0, np.float32))
    waiting: list[Pairs] = []
    for pairs in found:
        waiting.append(pairs)
        if sum(len(some.first) for some in waiting) > _KEPT_PAIRS:
            best, waiting = _keep_nearest([best, *waiting], n_rows), []
    return _keep_nearest([best, *waiting], n_rows)


def _keep_nearest(found: Sequence[Pairs], n_rows: int) -> Pairs:
    pairs = Pairs(*(np.concatenate(columns) for columns in zip(*found, strict=True)))
    key = (pairs.first * n_rows + pairs.second) * 8 + pairs.turn
    _, unique = np.unique(key, return_index=True)
    pairs = Pairs(*(column[unique] for column in pairs))
    rows = np.concatenate([pairs.first, pairs.second])
    order = np.lexsort((np.tile(pairs.apart, 2), rows))
    in_order = rows[order]
    near = np.empty(len(rows), bool)
    near[order] = np.arange(len(rows)) - np.searchsorted(in_order, in_order) < MAX_VERIFIED_PAIRS
    keep = near[: len(pairs.first)] | near[len(pairs.first) :]
    return Pairs(*(column[keep] for column in pairs))


def _candidates(pictures: Thumbnails, bits: int) -> Iterator[Pairs]:
    """Yield pairs of rows whose thumbnails agree, in each of the ways to turn the second."""
    grey = pictures.grey
    hashes, sums = _signatures(grey)
    for way in TURNS:
        turned, n_rows = grey, len(grey)
        both, both_sums = hashes, sums
        if way:
            squares = grey.reshape(-1, SIDE_PIXELS, SIDE_PIXELS)
            turned = np.ascontiguousarray(turn(squares, way)).reshape(len(grey), -1)
            turned_hashes, turned_sums = _signatures(turned)
            both = np.concatenate([hashes, turned_hashes])
            both_sums = np.concatenate([sums, turned_sums])
        for first, second in _close_pairs(both, both_sums, bits):
            if way:
                first, second = np.minimum(first, second), np.maximum(first, second)
                mixed = (first < n_rows) & (second >= n_rows)
                first, second = first[mixed], second[mixed] - n_rows
                # If two pictures are mirrored, each is the other one turned: one of both pairs is
                # enough.
                fit = pictures.strata[first] == pictures.strata[second]
                fit &= (first != second) if way == 1 else (first < second)
                first, second = first[fit], second[fit]
            yield from _alike(grey, turned, first, second, way)


def _alike(
    grey: np.ndarray, turned: np.ndarray, first: np.ndarray, second: np.ndarray, way: int
) -> Iterator[Pairs]:
    for start in range(0, len(first), _BLOCK_IMAGES):
        a, b = first[start : start + _BLOCK_IMAGES], second[start : start + _BLOCK_IMAGES]
        greater, less = np.maximum(grey[a], turned[b]), np.minimum(grey[a], turned[b])
        apart = (greater - less).mean(axis=1, dtype=np.float32)
        near = apart <= MAX_DIFFERENCE
        if near.any():
            yield Pairs(a[near], b[near], np.full(near.sum(), way), apart[near])


def _signatures(thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return hashes uint64[N] and sums float32[N,8] of thumbnails uint8[N,256]."""
    blocks = [thumbs[at : at + _BLOCK_IMAGES] for at in range(0, len(thumbs), _BLOCK_IMAGES)]
    hashes = np.concatenate([_hash(block) for block in blocks])
    return hashes, np.concatenate([block.astype(np.float32) @ _SIGNS for block in blocks])


def _hash(thumbs: np.ndarray) -> np.ndarray:
    """Return uint64[N] of thumbnails uint8[N,256]: the rises to the right in 8 rows of 9 levels."""
    rows = thumbs.reshape(-1, 8, 2, SIDE_PIXELS).mean(axis=2, dtype=np.float32)
    # Round to whole grey levels: smaller differences are noise, and flat parts have no order.
    small = np.rint(rows @ _SIXTEEN_TO_NINE / 16)
    bits = (small[:, :, 1:] > small[:, :, :-1]).reshape(-1, 64)
    return np.packbits(bits.take(_BIT_ORDER, axis=1), axis=1).view(">u8").ravel().astype(np.uint64)


def _close_pairs(
    hashes: np.ndarray, sums: np.ndarray, bits: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Return positions int64[M], int64[M] of hashes that differ in at most ``bits`` bits.

    Such hashes agree in one of ``bits + 1`` bands. Hashes with the same value of a band are
    sorted by a sum; each step pairs every hash with the one that many places later, up to
    `WINDOW_IMAGES`.
    """
    edges = np.linspace(0, 64, bits + 2).astype(int)
    for band, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        values = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.lexsort((sums[:, band % sums.shape[1]], values))
        values, places = values[order], np.arange(len(order))
        for step in range(1, min(len(order), WINDOW_IMAGES + 1)):
            places = places[places + step < len(order)]
            places = places[values[places] == values[places + step]]
            if not len(places):
                break
            first, second = order[places], order[places + step]
            close = np.bitwise_count(hashes[first] ^ hashes[second]) <= bits
            yield first[close], second[close]
