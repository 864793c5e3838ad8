"""FeatureStore: bottleneck features by (image, weights, preprocessing, tap); a crash-safe cache.

    <root>/<weights>-<preprocess>/<random>.<start>-<end>.<crc>.arrow      immutable segments

A segment is one Arrow IPC file: the images' sha256 as ``key``, and for each tap a column of
float16 vectors and one of their CRC-32. It is written under a temporary name, synced, and renamed:
it is there whole or not at all, so writers need no lock and a reader sees finished work only.
Segments are memory-mapped. The vectors lie between the bytes ``start`` and ``end``, and ``crc``
is that of all other bytes: it is checked before Arrow sees the file, since damaged metadata can
crash its reader. Vectors are checked row by row when they are read. A damaged row counts as
missing unless another segment holds it too, so it is computed again once and not for ever.
"""

from __future__ import annotations

import logging
import os
import re
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rootstock.errors import StoreError

_log = logging.getLogger(__name__)
_CRC = "crc:"
_NAME = re.compile(r"[0-9a-f]{32}\.([0-9a-f]+)-([0-9a-f]+)\.([0-9a-f]{8})\.arrow")
_Place = tuple[str, int]
"""A segment's name and a row of it."""


@dataclass(frozen=True)
class FeatureStore:
    """A folder of spaces."""

    root: Path

    def space(self, *, weights_sha256: str, preprocess_hash: str) -> Space:
        """The features made by these weights from images prepared in this way."""
        return Space(self.root / f"{weights_sha256[:20]}-{preprocess_hash[:20]}")


class Space:
    """Features of one backbone and one preprocessing. Other processes may append meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._segments: dict[str, pa.Table] = {}
        self._places: dict[str, dict[bytes, _Place]] = {}
        self._spares: dict[tuple[str, bytes], list[_Place]] = {}

    def missing(self, keys: Sequence[str], tap: str) -> list[int]:
        """Positions of the keys whose features are not stored, or were found damaged."""
        self._refresh()
        places = self._places.get(tap, {})
        return [i for i, key in enumerate(keys) if bytes.fromhex(key) not in places]

    def read(self, keys: Sequence[str], tap: str) -> np.ndarray:
        """Features float16[N,C] of images by their sha256, in the order given.

        Raises:
            StoreError: some are not stored, or damaged; `missing` tells which afterwards.
        """
        absent = self.missing(keys, tap)
        if absent:
            raise StoreError(
                f"{len(absent)} of {len(keys)} images have no features of {tap} in {self.folder}",
                hint="run the stage `features` again; it computes what is missing",
            )
        raw = [bytes.fromhex(key) for key in keys]
        found, damaged = self._gather(raw, tap)
        while damaged:
            lost = [key for key in damaged if not self._turn_to_spare(key, tap)]
            if lost:
                raise StoreError(
                    f"{len(lost)} rows of {tap} in {self.folder} are damaged",
                    hint="run the stage `features` again; it computes them anew",
                )
            found, damaged = self._gather(raw, tap)
        return found

    def checksums(self, keys: Sequence[str], tap: str) -> np.ndarray:
        """CRC-32 uint32[N] of the stored features, as recorded when they were written."""
        self._refresh()
        places = [self._places[tap][bytes.fromhex(key)] for key in keys]
        columns = {name: self._crcs(name, tap) for name in {name for name, _ in places}}
        return np.array([columns[name][row] for name, row in places], np.uint32)

    def append(self, keys: Sequence[str], features: Mapping[str, np.ndarray]) -> None:
        """Store features float16[N,C] of each tap; they are safe on disk on return.

        Raises:
            StoreError: the segment cannot be written, for example because the disk is full.
        """
        columns: dict[str, pa.Array] = {
            "key": pa.array([bytes.fromhex(key) for key in keys], pa.binary(32))
        }
        vectors: dict[str, pa.Array] = {}
        for tap, values in features.items():
            values = np.ascontiguousarray(values, np.float16)
            flat = pa.array(values.reshape(-1), pa.float16())
            vectors[tap] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
            columns[_CRC + tap] = pa.array([zlib.crc32(row) for row in values], pa.uint32())
        # The vectors come last, so that they are one range of the file.
        content = _serialise(pa.table(columns | vectors))
        start, end = _vector_range(content, list(vectors))
        crc = _crc_around(content, start, end)
        self._write(f"{uuid.uuid4().hex}.{start:x}-{end:x}.{crc:08x}.arrow", content)

    def _write(self, name: str, content: pa.Buffer) -> None:
        temporary = self.folder / f".{name}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self.folder / name)
            _sync_folder(self.folder)
        except OSError as error:
            raise StoreError(
                f"features cannot be written to {self.folder}: {error.strerror or error}",
                hint="free some disk space or move features.store; what was stored is kept",
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def _refresh(self) -> None:
        """Take up segments that have appeared since."""
        if not self.folder.is_dir():
            return
        # Oldest first: a row that was computed anew stands above its damaged older self.
        for path in sorted(self.folder.glob("*.arrow"), key=_age):
            if path.name in self._segments:
                continue
            try:
                table = _open(path)
            except (pa.ArrowException, OSError, ValueError) as error:
                _log.warning("%s is not a feature segment and is ignored: %s", path, error)
                table = pa.table({"key": pa.array([], pa.binary(32))})
            self._segments[path.name] = table
            self._list_rows(path.name, table)

    def _list_rows(self, segment: str, table: pa.Table) -> None:
        keys = table["key"].to_pylist()
        for tap in table.column_names:
            if tap == "key" or tap.startswith(_CRC):
                continue
            places = self._places.setdefault(tap, {})
            for row, key in enumerate(keys):
                if key in places:
                    self._spares.setdefault((tap, key), []).append((segment, row))
                else:
                    places[key] = (segment, row)

    def _turn_to_spare(self, key: bytes, tap: str) -> bool:
        """Forget where a damaged row lies; False where no other segment holds it."""
        del self._places[tap][key]
        spares = self._spares.get((tap, key))
        if not spares:
            return False
        self._places[tap][key] = spares.pop()
        return True

    def _gather(self, keys: Sequence[bytes], tap: str) -> tuple[np.ndarray, set[bytes]]:
        """Features float16[N,C], and the keys of those that do not fit their checksum."""
        found = np.empty((0, 0), np.float16)
        damaged: set[bytes] = set()
        for segment, positions in self._by_segment(keys, tap).items():
            rows = [self._places[tap][keys[position]][1] for position in positions]
            values = self._values(segment, tap)[rows]
            if not found.size:
                found = np.empty((len(keys), values.shape[1]), np.float16)
            found[positions] = values
            actual = np.array([zlib.crc32(row) for row in values], np.uint32)
            wrong = np.flatnonzero(actual != self._crcs(segment, tap)[rows])
            damaged.update(keys[positions[number]] for number in wrong)
        return found, damaged

    def _by_segment(self, keys: Sequence[bytes], tap: str) -> dict[str, list[int]]:
        groups: dict[str, list[int]] = {}
        for position, key in enumerate(keys):
            groups.setdefault(self._places[tap][key][0], []).append(position)
        return groups

    def _values(self, segment: str, tap: str) -> np.ndarray:
        column = self._segments[segment][tap].combine_chunks()
        return column.flatten().to_numpy(zero_copy_only=True).reshape(-1, column.type.list_size)

    def _crcs(self, segment: str, tap: str) -> np.ndarray:
        return self._segments[segment][_CRC + tap].to_numpy()


def _open(path: Path) -> pa.Table:
    """Map a segment; ValueError where the bytes around its vectors are not as written."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError("its name is not that of a segment")
    start, end, crc = (int(part, 16) for part in match.groups())
    with pa.memory_map(str(path)) as source:
        content = source.read_buffer()
    if _crc_around(content, start, end) != crc:
        raise ValueError("it is damaged")
    return pa.ipc.open_file(content).read_all()


def _serialise(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _vector_range(content: pa.Buffer, taps: Sequence[str]) -> tuple[int, int]:
    """First byte of the vectors and first byte after them."""
    table = pa.ipc.open_file(content).read_all()
    buffers = [table[tap].chunk(0).values.buffers()[1] for tap in taps]
    starts = [buffer.address - content.address for buffer in buffers]
    ends = [start + buffer.size for start, buffer in zip(starts, buffers, strict=True)]
    return min(starts), max(ends)


def _crc_around(content: pa.Buffer, start: int, end: int) -> int:
    view = memoryview(content)
    return zlib.crc32(view[end:], zlib.crc32(view[:start]))


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut; Windows cannot open folders, and need not."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
