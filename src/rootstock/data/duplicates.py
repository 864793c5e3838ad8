"""Find copies: files with the same bytes or nearly the same picture, also turned or mirrored.

Candidates have nearly the same grey thumbnail (`candidates`). A candidate is a copy only if the
full pictures agree (`likeness`): parts on a belt have the same thumbnail, but are not copies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from rootstock.data.candidates import (
    MAX_DIFFERENCE,
    SIDE_PIXELS,
    TURNS,
    Pairs,
    Thumbnail,
    Thumbnails,
    find_candidates,
    turn,
)

Verify = Callable[[Pairs], np.ndarray]
"""Return bool[M]: which candidates show the same picture."""


def thumbnail(levels: Image.Image) -> Thumbnail:
    """Return the thumbnail of an image of mode ``L``; resizing or compression barely changes it."""
    # Neither BOX, which takes whole pixels only, nor `reducing_gap`: both shift edges, so that
    # copies of other sizes look less similar.
    return levels.resize((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.HAMMING).tobytes()


def group_duplicates(
    sha256s: Sequence[str],
    thumbs: Sequence[Thumbnail],
    *,
    bits: int,
    strata: Sequence[str] | None = None,
    verify: Verify | None = None,
) -> np.ndarray:
    """Return picture ids int64[N]: equal for copies, unique for all other images.

    Two images are candidates if the hashes of their thumbnails differ in at most ``bits`` bits and
    the thumbnails agree; they are copies if ``verify`` confirms it. Images of different ``strata``
    are not compared turned or mirrored: an arrow to the left is not a copy of an arrow to the
    right. Without ``thumbs`` only files with equal bytes are copies. The id of a group comes from
    the content of its first member by sha256.
    """
    first_of: dict[str, int] = {}
    home = [first_of.setdefault(sha, index) for index, sha in enumerate(sha256s)]
    if thumbs:
        # In order of content, so that the same pictures give the same groups whatever their names.
        chosen = np.array(sorted(first_of.values(), key=lambda i: sha256s[i]), np.int64)
        pictures = Thumbnails.of([thumbs[i] for i in chosen], chosen, strata)
        links = _link_to_cores(pictures, bits, verify)
        home = [links.get(index, index) for index in home]
    # 15 hexadecimal digits are 60 bits, which fit a signed 64-bit column.
    ids = [int(sha[:15], 16) for sha in sha256s]
    smallest: dict[int, int] = {}
    for index, core in enumerate(home):
        smallest[core] = min(ids[index], smallest.get(core, ids[index]))
    return np.array([smallest[core] for core in home], dtype=np.int64)


def _link_to_cores(pictures: Thumbnails, bits: int, verify: Verify | None) -> dict[int, int]:
    """Return the number of the core of each image that is a copy of another.

    A copy is linked to the core of its group, never to another member, so that gradual changes from
    picture to picture do not form a chain. If cores of two groups are copies, the groups are
    merged: with very many copies, each was compared with only a few.
    """
    if len(pictures.grey) < 2:
        return {}
    pairs = find_candidates(pictures, bits)
    same = _compare(pictures, pairs, verify)
    first, second = pairs.first[same], pairs.second[same]
    core = np.arange(len(pictures.grey))
    refused: set[tuple[int, int]] = set()
    one, other = first, second
    while stars := _stars(one, other):
        joined = np.arange(len(core))
        joined[list(stars)] = list(stars.values())
        core = joined[core]
        ends = np.sort(np.stack([core[first], core[second]], axis=1), axis=1)
        open_ = sorted({(a, b) for a, b in ends.tolist() if a != b} - refused)
        trials = _turn_all_ways(pictures, open_)
        same = _compare(pictures, trials, verify)
        one, other = trials.first[same], trials.second[same]
        copies = np.sort(np.stack([one, other], axis=1), axis=1).tolist()
        refused |= set(open_) - {(a, b) for a, b in copies}
    moved = np.flatnonzero(core != np.arange(len(core)))
    numbers = pictures.numbers
    return dict(zip(numbers[moved].tolist(), numbers[core[moved]].tolist(), strict=True))


def _turn_all_ways(pictures: Thumbnails, ends: Sequence[tuple[int, int]]) -> Pairs:
    rows = [
        (*pair, way)
        for a, b in ends
        for way in (TURNS if pictures.strata[a] == pictures.strata[b] else (0,))
        for pair in (((a, b), (b, a)) if way == 1 else ((a, b),))
    ]
    first, second, ways = np.array(rows, np.int64).reshape(-1, 3).T
    return Pairs(first, second, ways, np.zeros(len(rows), np.float32))


def _compare(pictures: Thumbnails, pairs: Pairs, verify: Verify | None) -> np.ndarray:
    """Return bool[M]: which pairs of rows are the same picture; without ``verify`` all."""
    if verify is not None:
        numbers = pictures.numbers
        return verify(pairs._replace(first=numbers[pairs.first], second=numbers[pairs.second]))
    same = np.zeros(len(pairs.first), bool)
    squares = pictures.grey.reshape(-1, SIDE_PIXELS, SIDE_PIXELS)
    for way in TURNS:
        chosen = np.flatnonzero(pairs.turn == way)
        other = turn(squares[pairs.second[chosen]], way).astype(np.int16)
        apart = np.abs(squares[pairs.first[chosen]] - other).mean(axis=(1, 2))
        same[chosen] = apart <= MAX_DIFFERENCE
    return same


def _stars(first: np.ndarray, second: np.ndarray) -> dict[int, int]:
    """Return the core of every row that has a copy; a core has the most copies not yet assigned."""
    copies: dict[int, list[int]] = defaultdict(list)
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        copies[one].append(other)
        copies[other].append(one)
    core_of: dict[int, int] = {}
    for row in sorted(copies, key=lambda row: (-len(copies[row]), row)):
        if row not in core_of:
            core_of[row] = row
            for copy in copies[row]:
                core_of.setdefault(copy, row)
    return core_of
