"""FeatureStore: bottleneck features by (image, weights, preprocessing, tap); a crash-safe cache.

    <root>/<weights>-<preprocess>/<random>.arrow      immutable segments

A segment is one Arrow IPC file: the images' sha256 as ``key``, and for each tap a column of
float16 vectors and one of their CRC-32. It is written under a temporary name, synced, and renamed:
it is there whole or not at all, so writers need no lock and a reader sees finished work only.
Segments are memory-mapped; rows are checked when they are read, and a damaged row counts as
missing, so that it is computed again.
"""

from __future__ import annotations

import logging
import os
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
        self._places: dict[str, dict[bytes, tuple[str, int]]] = {}
        self._damaged: dict[str, set[bytes]] = {}

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
        found: np.ndarray | None = None
        for segment, positions in self._by_segment(raw, tap).items():
            rows = [self._places[tap][raw[position]][1] for position in positions]
            values = self._values(segment, tap)[rows]
            self._verify(segment, tap, rows, values)
            if found is None:
                found = np.empty((len(keys), values.shape[1]), np.float16)
            found[positions] = values
        self._raise_damaged(tap)
        return np.empty((0, 0), np.float16) if found is None else found

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
        for tap, values in features.items():
            values = np.ascontiguousarray(values, np.float16)
            flat = pa.array(values.reshape(-1), pa.float16())
            columns[tap] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
            columns[_CRC + tap] = pa.array([zlib.crc32(row) for row in values], pa.uint32())
        self._write(pa.table(columns))

    def _write(self, table: pa.Table) -> None:
        name = f"{uuid.uuid4().hex}.arrow"
        temporary = self.folder / f".{name}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                with pa.ipc.new_file(file, table.schema) as writer:
                    writer.write_table(table)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self.folder / name)
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
                with pa.memory_map(str(path)) as source:
                    table = pa.ipc.open_file(source).read_all()
                keys = table["key"].to_pylist()
            except (pa.ArrowInvalid, pa.ArrowTypeError, OSError, KeyError) as error:
                _log.warning("%s is not a feature segment and is ignored: %s", path, error)
                table, keys = pa.table({}), []
            self._segments[path.name] = table
            for tap in table.column_names:
                if tap != "key" and not tap.startswith(_CRC):
                    places = self._places.setdefault(tap, {})
                    places.update({key: (path.name, row) for row, key in enumerate(keys)})

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

    def _verify(self, segment: str, tap: str, rows: Sequence[int], values: np.ndarray) -> None:
        expected = self._crcs(segment, tap)[rows]
        actual = np.array([zlib.crc32(row) for row in values], np.uint32)
        wrong = {row for row, bad in zip(rows, actual != expected, strict=True) if bad}
        for key, place in self._places[tap].items():
            if wrong and place[0] == segment and place[1] in wrong:
                self._damaged.setdefault(tap, set()).add(key)

    def _raise_damaged(self, tap: str) -> None:
        damaged = self._damaged.pop(tap, set())
        for key in damaged:
            del self._places[tap][key]
        if damaged:
            raise StoreError(
                f"{len(damaged)} rows of {tap} in {self.folder} are damaged",
                hint="run the stage `features` again; it computes them anew",
            )


def _age(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, path.name
