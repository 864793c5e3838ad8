"""FeatureStore: bottleneck features by (image, weights, preprocessing, tap); a crash-safe cache.

    <root>/<weights>-<preprocess>/<tap>/<time>-<digest>.safetensors      immutable segments

Writers add segments and need no lock: a segment is there whole or not at all, so a reader sees
finished work only. Keys are searched where the segments are mapped, so that memory hardly grows
with the number of images. Of an image that was stored twice the older row is read, or the newer one
where that is damaged; with no intact row it counts as missing, so that it is computed again.
What keeps the store small and quick stands in `upkeep`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path

import numpy as np

from rootstock.errors import StoreError
from rootstock.features.store.key_index import KEY, KeyIndex
from rootstock.features.store.segment import DAMAGED, SUFFIX, Segment, row_sums, write_segment

_log = logging.getLogger(__name__)
Keys = Sequence[str] | np.ndarray
"""Images by their sha256: hexadecimal strings, or an array S32[N] of the bytes."""
_NAME = "[0-9a-f]" * 16 + f"-*{SUFFIX}"
_ROW_BITS = 40
_VERIFIED_AT_ONCE = 1 << 14
_HINT = "run the stage `features` again; it computes what is missing"


@dataclass(frozen=True)
class FeatureStore:
    """A folder of spaces."""

    root: Path

    def space(self, *, weights_sha256: str, preprocess_hash: str) -> FeatureSpace:
        """The features made by these weights from images prepared in this way."""
        return FeatureSpace(self.root / f"{weights_sha256[:20]}-{preprocess_hash[:20]}")

    def spaces(self) -> list[FeatureSpace]:
        """Every space on disk."""
        return [FeatureSpace(folder) for folder in _folders(self.root)]


class FeatureSpace:
    """Features of one backbone and one preprocessing. Other processes may append meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taps: dict[str, Segments] = {}

    def missing(self, keys: Keys, tap: str, *, verify: bool = False) -> list[int]:
        """Positions of the keys whose features are not stored, or were found damaged.

        ``verify`` reads all of them, so that none is found damaged later.
        """
        rows = self._locate(keys, tap)
        while verify and not rows.verify():
            rows = self._locate(keys, tap)
        return rows.lacking.tolist()

    def rows(self, keys: Keys, tap: str) -> Rows:
        """Where the features of these images lie: for reading parts of them many times.

        Raises:
            StoreError: some are not stored.
        """
        rows = self._locate(keys, tap)
        if rows.lacking.size:
            raise StoreError(
                f"{rows.lacking.size} of {len(keys)} images have no features of {tap} in "
                f"{self.folder}, or damaged ones",
                hint=_HINT,
            )
        return rows

    def read(self, keys: Keys, tap: str) -> np.ndarray:
        """Features float16[N,C] of images, in the order given.

        Raises:
            StoreError: some are not stored, or damaged; `missing` tells which afterwards.
        """
        found = None
        while found is None:
            found = self.rows(keys, tap).take_intact(slice(None))
        return found

    def checksums(self, keys: Keys, tap: str) -> np.ndarray:
        """CRC-32 uint32[N] of the stored features, as recorded when they were written.

        Raises:
            StoreError: some are not stored.
        """
        return self.rows(keys, tap).checksums()

    def append(self, keys: Keys, features: Mapping[str, np.ndarray]) -> None:
        """Store features float16[N,C] of each tap; they are safe on disk on return.

        Raises:
            StoreError: a segment cannot be written, for example because the disk is full.
        """
        names, first = np.unique(_packed(keys), return_index=True)
        if not len(names):
            return
        for tap, values in features.items():
            ordered = np.ascontiguousarray(values[first], np.float16)
            write_segment(
                self.folder / tap,
                KeyIndex.of(names),
                row_sums(ordered),
                [ordered],
                width=ordered.shape[1],
                stamp=time.time_ns(),
            )

    def taps(self) -> list[Segments]:
        """Every tap on disk."""
        return [self._tap(folder.name) for folder in _folders(self.folder)]

    def _tap(self, tap: str) -> Segments:
        if tap not in self._taps:
            self._taps[tap] = Segments(self.folder / tap)
        return self._taps[tap]

    def _locate(self, keys: Keys, tap: str) -> Rows:
        return self._tap(tap).locate(_packed(keys))


class Segments:
    """The segments of one tap. Those open stay readable whatever becomes of their files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened: dict[str, Segment | None] = {}

    def locate(self, keys: np.ndarray) -> Rows:
        """Find keys S32[N]; looks for new segments only if a key is in none of those open."""
        rows = find(self._usable(), keys)
        if rows.lacking.size and self._refresh():
            rows = find(self._usable(), keys)
        return rows

    def latest(self) -> list[Segment]:
        """The segments on disk now, the oldest first."""
        self._refresh()
        return self._usable()

    def refused(self) -> list[Path]:
        """Files that have the name of a segment but are none, as of the last look."""
        return [self.folder / name for name, opened in self._opened.items() if opened is None]

    def _refresh(self) -> bool:
        """Open what is new, let go of what is retired; whether there was any."""
        before, again = self._opened, True
        while again:
            opened: dict[str, Segment | None] = {}
            again = False
            for path in sorted(self.folder.glob(_NAME)):
                try:
                    known = path.name in before
                    opened[path.name] = before[path.name] if known else _open(path)
                except FileNotFoundError:
                    # It was merged after the listing: its rows are in a file not listed yet.
                    again = True
        self._opened = opened
        return opened.keys() != before.keys()

    def _usable(self) -> list[Segment]:
        return [segment for segment in self._opened.values() if segment is not None]


@dataclass(frozen=True)
class Rows:
    """Where the features of N images lie; 8 bytes an image, the features stay on disk.

    ``places`` int64[N] are numbers of segment and row, below 0 where there is none.
    """

    segments: list[Segment]
    places: np.ndarray

    @cached_property
    def lacking(self) -> np.ndarray:
        """Positions int64[K] of images that have none."""
        return np.flatnonzero(self.places < 0)

    def take(self, index: np.ndarray | slice) -> np.ndarray:
        """Features float16[K,C] of some of the images, by position.

        Raises:
            StoreError: some are damaged.
        """
        found = self.take_intact(index)
        if found is None:
            raise StoreError(f"rows of {self.segments[0].path.parent} are damaged", hint=_HINT)
        return found

    def take_intact(self, index: np.ndarray | slice) -> np.ndarray | None:
        """As `take`; None where some turn out to be damaged, which the next search leaves out."""
        places = self.places[index]
        found = np.empty((0, 0), np.float16)
        for segment, positions, rows in self._groups(places):
            if not segment.check(rows):
                return None
            if len(rows) == len(places):
                return segment.values.take(rows, axis=0)
            if not found.size:
                found = np.empty((len(places), segment.values.shape[1]), np.float16)
            found[positions] = segment.values[rows]
        return found

    def verify(self) -> bool:
        """Whether all that is there is intact: reads the files in order, keeps nothing."""
        intact = True
        for segment, _, rows in self._groups(self.places):
            ordered = np.sort(rows)
            for first in range(0, len(rows), _VERIFIED_AT_ONCE):
                intact &= segment.check(ordered[first : first + _VERIFIED_AT_ONCE])
                segment.release()
        return intact

    def checksums(self) -> np.ndarray:
        """CRC-32 uint32[N] as recorded; 0 where there is none."""
        sums = np.zeros(len(self.places), np.uint32)
        for segment, positions, rows in self._groups(self.places):
            sums[positions] = segment.sums[rows]
        return sums

    def _groups(self, places: np.ndarray) -> Iterator[tuple[Segment, np.ndarray, np.ndarray]]:
        """Each segment concerned, with positions in ``places`` and rows there."""
        numbers, rows = places >> _ROW_BITS, places & ((1 << _ROW_BITS) - 1)
        if len(places) and numbers[0] >= 0 and not np.count_nonzero(numbers != numbers[0]):
            yield self.segments[numbers[0]], np.arange(len(places)), rows
            return
        order = np.argsort(numbers, kind="stable")
        cuts = np.flatnonzero(np.diff(numbers[order])) + 1
        for positions in np.split(order, cuts):
            if len(positions) and numbers[positions[0]] >= 0:
                yield self.segments[numbers[positions[0]]], positions, rows[positions]


def find(segments: list[Segment], keys: np.ndarray) -> Rows:
    """Look for keys S32[N]; the first segment wins that holds a row not known to be damaged."""
    # Only where a segment is shorter do the keys have to be in order, which costs a sort.
    long = len(list(takewhile(lambda segment: len(segment.sums) >= len(keys), segments)))
    places = _find(segments[:long], KeyIndex.of(keys), 0)
    lacking = np.flatnonzero(places < 0)
    if lacking.size and long < len(segments):
        names, inverse = KeyIndex.sort(keys.take(lacking))
        places[lacking] = _find(segments[long:], names, long).take(inverse)
    return Rows(segments, places)


def _find(segments: list[Segment], names: KeyIndex, first: int) -> np.ndarray:
    """Places int64[N] in these segments, numbered from ``first``."""
    places = np.full(len(names.keys), -1, np.int64)
    lacking = len(places)
    for number, segment in enumerate(segments, first):
        if not lacking:
            break
        wanted, rows = names.match(segment.names)
        new = (places.take(wanted) < 0) & (segment.state.take(rows) != DAMAGED)
        if np.count_nonzero(new) < len(new):
            wanted, rows = wanted[new], rows[new]
        places[wanted] = (number << _ROW_BITS) + rows
        lacking -= len(wanted)
    return places


def _open(path: Path) -> Segment | None:
    try:
        return Segment.open(path)
    except ValueError as error:
        _log.warning("%s is not a feature segment and is ignored: %s", path, error)
        return None


def _packed(keys: Keys) -> np.ndarray:
    if isinstance(keys, np.ndarray):
        return keys.astype(KEY, copy=False)
    return np.frombuffer(bytearray.fromhex("".join(keys)), KEY)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[!.]*") if path.is_dir())
