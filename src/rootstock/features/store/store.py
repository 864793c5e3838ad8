"""FeatureStore: bottleneck features by (image, weights, preprocessing, tap); a crash-safe cache.

    <root>/<weights>-<preprocess>/<tap>/<time>-<digest>.safetensors      immutable segments

Writers add segments and need no lock: a segment exists whole or not at all, so a reader sees only
finished work. Keys are searched in the mapped segments, so memory hardly grows with the number of
images. If an image was stored twice, the older row is read, or the newer one if that is damaged;
without an intact row it counts as missing and is computed again. `compaction` keeps the store small
and fast.
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
"""Images by sha256: hexadecimal strings, or an array S32[N] of the bytes."""
_NAME = "[0-9a-f]" * 16 + f"-*{SUFFIX}"
_ROW_BITS = 40
_VERIFY_ROWS = 1 << 14
_HINT = "run the stage `features` again; it computes what is missing"


@dataclass(frozen=True)
class FeatureStore:
    """A folder of spaces."""

    root: Path

    def space(self, *, weights_sha256: str, preprocess_hash: str) -> FeatureSpace:
        """Return the features of these weights for images prepared in this way."""
        return FeatureSpace(self.root / f"{weights_sha256[:20]}-{preprocess_hash[:20]}")

    def spaces(self) -> list[FeatureSpace]:
        """Return every space on disk."""
        return [FeatureSpace(folder) for folder in _folders(self.root)]


class FeatureSpace:
    """Features of one backbone and one preprocessing; other processes may append to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taps: dict[str, Segments] = {}

    def missing(self, keys: Keys, tap: str, *, verify: bool = False) -> list[int]:
        """Return positions of the keys without stored features, or with known damage.

        ``verify`` reads all rows, so that no damage is found later.
        """
        rows = self._locate(keys, tap)
        while verify and not rows.verify():
            rows = self._locate(keys, tap)
        return rows.missing.tolist()

    def rows(self, keys: Keys, tap: str) -> Rows:
        """Locate the features of these images, to read parts of them many times.

        Raises:
            StoreError: some are not stored.
        """
        rows = self._locate(keys, tap)
        if rows.missing.size:
            raise StoreError(
                f"{rows.missing.size} of {len(keys)} images have no features of {tap} in "
                f"{self.folder}, or damaged ones",
                hint=_HINT,
            )
        return rows

    def read(self, keys: Keys, tap: str) -> np.ndarray:
        """Return features float16[N,C] of images, in the order given.

        Raises:
            StoreError: some are not stored, or damaged; `missing` lists them afterwards.
        """
        features = None
        while features is None:
            features = self.rows(keys, tap).take_intact(slice(None))
        return features

    def checksums(self, keys: Keys, tap: str) -> np.ndarray:
        """Return CRC-32 uint32[N] of the stored features, as recorded when they were written.

        Raises:
            StoreError: some are not stored.
        """
        return self.rows(keys, tap).checksums()

    def append(self, keys: Keys, features: Mapping[str, np.ndarray]) -> None:
        """Store features float16[N,C] of each tap; they are safe on disk on return.

        Raises:
            StoreError: a segment cannot be written, for example because the disk is full.
        """
        unique, first = np.unique(_packed(keys), return_index=True)
        if not len(unique):
            return
        for tap, values in features.items():
            ordered = np.ascontiguousarray(values[first], np.float16)
            write_segment(
                self.folder / tap,
                KeyIndex.of(unique),
                row_sums(ordered),
                [ordered],
                width=ordered.shape[1],
                stamp=time.time_ns(),
            )

    def taps(self) -> list[Segments]:
        """Return every tap on disk."""
        return [self._tap(folder.name) for folder in _folders(self.folder)]

    def _tap(self, tap: str) -> Segments:
        if tap not in self._taps:
            self._taps[tap] = Segments(self.folder / tap)
        return self._taps[tap]

    def _locate(self, keys: Keys, tap: str) -> Rows:
        return self._tap(tap).locate(_packed(keys))


class Segments:
    """The segments of one tap. Open ones stay readable, whatever happens to their files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened: dict[str, Segment | None] = {}

    def locate(self, keys: np.ndarray) -> Rows:
        """Find keys S32[N]; look for new segments only if an open one lacks a key."""
        rows = find(self._usable(), keys)
        if rows.missing.size and self._refresh():
            rows = find(self._usable(), keys)
        return rows

    def latest(self) -> list[Segment]:
        """Return the segments on disk now, the oldest first."""
        self._refresh()
        return self._usable()

    def refused(self) -> list[Path]:
        """Return files that are named like a segment but are not one, as of the last look."""
        return [self.folder / name for name, opened in self._opened.items() if opened is None]

    def _refresh(self) -> bool:
        """Open new segments and close retired ones; return whether there were any."""
        before, again = self._opened, True
        while again:
            opened: dict[str, Segment | None] = {}
            again = False
            for path in sorted(self.folder.glob(_NAME)):
                try:
                    known = path.name in before
                    opened[path.name] = before[path.name] if known else _open(path)
                except FileNotFoundError:
                    # It was merged after the listing, so its rows are in a file that is not listed
                    # yet.
                    again = True
        self._opened = opened
        return opened.keys() != before.keys()

    def _usable(self) -> list[Segment]:
        return [segment for segment in self._opened.values() if segment is not None]


@dataclass(frozen=True)
class Rows:
    """The places of the features of N images: 8 bytes per image; the features stay on disk.

    ``places`` int64[N] are numbers of segment and row, negative if there is none.
    """

    segments: list[Segment]
    places: np.ndarray

    @cached_property
    def missing(self) -> np.ndarray:
        """Positions int64[K] of images without features."""
        return np.flatnonzero(self.places < 0)

    def take(self, index: np.ndarray | slice) -> np.ndarray:
        """Return features float16[K,C] of some of the images, by position.

        Raises:
            StoreError: some are damaged.
        """
        features = self.take_intact(index)
        if features is None:
            raise StoreError(f"rows of {self.segments[0].path.parent} are damaged", hint=_HINT)
        return features

    def take_intact(self, index: np.ndarray | slice) -> np.ndarray | None:
        """Do as `take`; return None if some rows are damaged, which the next search skips."""
        places = self.places[index]
        features = np.empty((0, 0), np.float16)
        for segment, positions, rows in self._groups(places):
            if not segment.check(rows):
                return None
            if len(rows) == len(places):
                return segment.values.take(rows, axis=0)
            if not features.size:
                features = np.empty((len(places), segment.values.shape[1]), np.float16)
            features[positions] = segment.values[rows]
        return features

    def verify(self) -> bool:
        """Return whether all rows are intact; read the files in order and keep nothing."""
        intact = True
        for segment, _, rows in self._groups(self.places):
            ordered = np.sort(rows)
            for first in range(0, len(rows), _VERIFY_ROWS):
                intact &= segment.check(ordered[first : first + _VERIFY_ROWS])
                segment.release()
        return intact

    def checksums(self) -> np.ndarray:
        """Return CRC-32 uint32[N] as recorded; 0 if there is none."""
        sums = np.zeros(len(self.places), np.uint32)
        for segment, positions, rows in self._groups(self.places):
            sums[positions] = segment.sums[rows]
        return sums

    def _groups(self, places: np.ndarray) -> Iterator[tuple[Segment, np.ndarray, np.ndarray]]:
        """Yield each segment with positions in ``places`` and the rows there."""
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
    """Find keys S32[N]; the first segment with a row that is not known to be damaged wins."""
    # Keys must be sorted, which takes time, only if a segment is shorter.
    long = len(list(takewhile(lambda segment: len(segment.sums) >= len(keys), segments)))
    places = _find(segments[:long], KeyIndex.of(keys), 0)
    missing = np.flatnonzero(places < 0)
    if missing.size and long < len(segments):
        index, inverse = KeyIndex.sort(keys.take(missing))
        places[missing] = _find(segments[long:], index, long).take(inverse)
    return Rows(segments, places)


def _find(segments: list[Segment], index: KeyIndex, first: int) -> np.ndarray:
    """Return places int64[N] in these segments, numbered from ``first``."""
    places = np.full(len(index.keys), -1, np.int64)
    n_missing = len(places)
    for number, segment in enumerate(segments, first):
        if not n_missing:
            break
        positions, rows = index.match(segment.index)
        new = (places.take(positions) < 0) & (segment.state.take(rows) != DAMAGED)
        if np.count_nonzero(new) < len(new):
            positions, rows = positions[new], rows[new]
        places[positions] = (number << _ROW_BITS) + rows
        n_missing -= len(positions)
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
