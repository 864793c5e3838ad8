"""Segment: one immutable file of features of one tap, sorted by image.

A segment is a safetensors file that any reader of that format opens:

    prefixes  uint64[N]     the first 8 bytes of the keys as numbers, for a quick search
    keys      uint8[N,32]   sha256 of the images, ascending
    sums      uint32[N]     CRC-32 of each row of values
    values    float16[N,C]

It is written under a temporary name, synced, then renamed, so it exists whole or not at all. Later
damage is detected: the header and the length of the file follow from N and C, so any other file is
refused; a row is compared with its checksum when a process first reads it; and a damaged key is not
found.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import uuid
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rootstock.errors import StoreError
from rootstock.features.store.key_index import KEY, KeyIndex

_log = logging.getLogger(__name__)
SUFFIX = ".safetensors"
_UNREAD, _INTACT, DAMAGED = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Segment:
    """A segment on disk, mapped into memory; ``state`` records which rows are checked."""

    path: Path
    index: KeyIndex
    sums: np.ndarray
    values: np.ndarray
    state: np.ndarray
    mapped: mmap.mmap

    @classmethod
    def open(cls, path: Path) -> Segment:
        """Map a segment without reading its rows.

        Raises:
            ValueError: the file is not a segment, or is truncated.
            FileNotFoundError: it does not exist any more.
        """
        with path.open("rb") as file:
            head = file.read(8)
            head += file.read(min(int.from_bytes(head, "little"), 4096))
            try:
                n, width = (int(number) for number in json.loads(head[8:])["values"]["shape"])
            except (KeyError, TypeError, ValueError):
                raise ValueError("it has no header of a segment") from None
            if n < 1 or width < 1 or head != _header(n, width):
                raise ValueError("it has no header of a segment")
            size, expected = os.fstat(file.fileno()).st_size, len(head) + n * (44 + 2 * width)
            if size != expected:
                raise ValueError(f"it has {size} bytes instead of {expected}")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        prefixes = np.frombuffer(mapped, "<u8", n, len(head))
        keys = np.frombuffer(mapped, KEY, n, len(head) + 8 * n)
        sums = np.frombuffer(mapped, "<u4", n, len(head) + 40 * n)
        values = np.frombuffer(mapped, "<f2", n * width, len(head) + 44 * n).reshape(n, width)
        return cls(path, KeyIndex(keys, prefixes), sums, values, np.zeros(n, np.uint8), mapped)

    def check(self, rows: np.ndarray) -> bool:
        """Return whether rows int64[K] are intact; rows read for the first time are compared."""
        state = self.state.take(rows)
        if np.count_nonzero(state == _INTACT) == len(rows):
            return True
        unread = rows[state == _UNREAD]
        if unread.size:
            right = row_sums(self.values[row] for row in unread.tolist()) == self.sums[unread]
            self.state[unread] = np.where(right, _INTACT, DAMAGED)
            if not right.all():
                damaged = len(set(unread[~right].tolist()))
                _log.warning("%s: %d damaged rows count as missing", self.path, damaged)
        return bool((self.state[rows] == _INTACT).all())

    def release(self) -> None:
        """Return memory pages to the system; reading still works."""
        self.mapped.madvise(mmap.MADV_DONTNEED)


def row_sums(rows: Iterable[np.ndarray]) -> np.ndarray:
    """Return checksums uint32[N] of contiguous rows float16[C]."""
    return np.fromiter((zlib.crc32(row.data) for row in rows), np.uint32)


def write_segment(
    folder: Path,
    index: KeyIndex,
    sums: np.ndarray,
    values: Iterable[np.ndarray],
    *,
    width: int,
    stamp: int,
) -> Path:
    """Write the keys, checksums and values of N images; they are safe on disk on return.

    ``values`` yields float16[K,C], N rows in total. The file's name starts with ``stamp``, so that
    names sort by age, and ends with a digest of keys and checksums.
    Raises:
        StoreError: it cannot be written, for example because the disk is full.
    """
    digest = hashlib.sha256(index.keys.tobytes() + sums.tobytes()).hexdigest()[:32]
    path = folder / f"{stamp:016x}-{digest}{SUFFIX}"
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(_header(len(sums), width))
            for part in (index.prefixes, index.keys, sums):
                file.write(part.tobytes())
            for block in values:
                file.write(np.ascontiguousarray(block, "<f2").data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        # KeyIndex have to last as well: the file's, and those of folders just made.
        for named in (folder, *folder.parents[:3]):
            _sync_folder(named)
    except OSError as error:
        raise StoreError(
            f"features cannot be written to {folder}: {error.strerror or error}",
            hint="free some disk space or move features.store; stored features are kept",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return path


def _header(n: int, width: int) -> bytes:
    kinds = [
        ("prefixes", "U64", [n], 8 * n),
        ("keys", "U8", [n, 32], 32 * n),
        ("sums", "U32", [n], 4 * n),
        ("values", "F16", [n, width], 2 * n * width),
    ]
    tensors: dict[str, object] = {"__metadata__": {"format": "rootstock-features-1"}}
    start = 0
    for name, dtype, shape, size in kinds:
        offsets = [start, start + size]
        tensors[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        start += size
    text = json.dumps(tensors).encode()
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return  # an unreadable folder above the store is not one that we created
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
