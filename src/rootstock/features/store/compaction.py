"""Merge small segments into large ones, and remove features that no manifest needs.

Both are safe with concurrent readers and writers, on other machines too. A merged segment is
complete before the old ones are retired: they are renamed, so that no reader opens them any more,
and deleted an hour later, because a shared file system may take a deleted file away from a machine
that still reads it. A process that stops halfway leaves duplicate rows, but never loses one.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rootstock.data.manifest import Manifest
from rootstock.errors import StoreError
from rootstock.features.store.key_index import KEY, KeyIndex
from rootstock.features.store.segment import Segment, write_segment
from rootstock.features.store.store import FeatureSpace, FeatureStore, Rows, find

_log = logging.getLogger(__name__)
GRACE_SECONDS = 3600.0
"""Younger files are kept: the manifest of their writer may not exist yet."""
MAX_WASTE_SHARE = 0.1
"""A segment with at least this share of unneeded rows is rewritten."""
FANOUT_BITS = 4
"""2**4 segments of similar size are merged, so a row is copied once per 16-fold growth."""
MAX_ROWS, MAX_BYTES = 1 << 20, 1 << 32
"""Maximum rows, and bytes of values, of a merged segment, which bounds the cost of a merge."""
_BLOCK_BYTES = 1 << 27
"""Bytes that a merge writes at a time; more means longer runs read from each segment."""
_RETIRED = ".retired"


@dataclass(frozen=True)
class Collected:
    """The result of `collect`: removed rows, and deleted files (some retired by earlier calls)."""

    rows: int
    files: int


def compact(space: FeatureSpace, *, grace_s: float = GRACE_SECONDS) -> int:
    """Merge small segments if there are many; return the number of merged segments.

    A store that is not writable, or a disk without room for the copy, is not changed.
    """
    merged = 0
    try:
        for tap in space.taps():
            _sweep(tap.folder, grace_s)
            for group in _groups(tap.latest()):
                _merge(tap.folder, group)
                merged += len(group)
    except (OSError, StoreError) as error:
        _log.warning("%s is not compacted: %s", space.folder, error)
    return merged


def collect(
    store: FeatureStore, manifests: Iterable[Manifest], *, grace_s: float = GRACE_SECONDS
) -> Collected:
    """Remove features of images that are usable rows of none of the manifests.

    Name every manifest in use; features removed by mistake are computed again. Segments younger
    than ``grace_s`` seconds are kept, and older ones with few unneeded rows too.
    Raises:
        StoreError: the store cannot be written, for example because the disk is full.
    """
    raw = bytearray().join(bytes.fromhex(r.sha256) for m in manifests for r in m.rows())
    needed = KeyIndex.of(np.unique(np.frombuffer(raw, KEY)) if raw else np.empty(0, KEY))
    rows = files = 0
    for tap in (tap for space in store.spaces() for tap in space.taps()):
        oldest = _now(tap.folder) - grace_s
        for segment in tap.latest():
            n, n_needed = len(segment.sums), len(segment.index.match(needed)[0])
            if n - n_needed > MAX_WASTE_SHARE * n and _is_older(segment.path, oldest):
                _merge(tap.folder, [segment], needed)
                rows += n - n_needed
        for path in tap.refused():
            if _is_older(path, oldest):
                _retire(path)
        files += _sweep(tap.folder, grace_s)
    return Collected(rows, files)


def _groups(segments: list[Segment]) -> Iterator[list[Segment]]:
    """Yield groups of similar segments to merge, the oldest first."""
    tiers: dict[int, list[Segment]] = {}
    for segment in segments:
        tiers.setdefault((len(segment.sums).bit_length() - 1) // FANOUT_BITS, []).append(segment)
    for tier in tiers.values():
        if len(tier) < 1 << FANOUT_BITS:
            continue
        groups: list[list[Segment]] = [[]]
        max_rows = room = min(MAX_ROWS, MAX_BYTES // tier[0].values[0].nbytes)
        for segment in tier:
            if len(segment.sums) > room:
                groups, room = [*groups, []], max_rows
            groups[-1].append(segment)
            room -= len(segment.sums)
        yield from (group for group in groups if len(group) > 1)


def _merge(folder: Path, segments: list[Segment], needed: KeyIndex | None = None) -> None:
    """Write the intact rows that are needed (None: all) as one segment; retire the old ones."""
    keys = np.unique(np.concatenate([segment.index.keys for segment in segments]))
    if needed is not None:
        keys = keys[KeyIndex.of(keys).match(needed)[0]]
    rows = find(segments, keys)
    while not rows.verify():
        rows = find(segments, keys)
    intact = rows.places >= 0
    rows = Rows(segments, rows.places[intact])
    if intact.any():
        width = segments[0].values.shape[1]
        write_segment(
            folder,
            KeyIndex.of(keys[intact]),
            rows.checksums(),
            (rows.take(block) for block in _blocks(len(rows.places), width)),
            width=width,
            stamp=int(segments[0].path.name[:16], 16),
        )
    for segment in segments:
        _retire(segment.path)


def _blocks(n: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK_BYTES // (2 * width))
    return (slice(start, start + step) for start in range(0, n, step))


def _retire(path: Path) -> None:
    with suppress(FileNotFoundError):
        os.utime(path)
        path.rename(path.with_name(path.name + _RETIRED))


def _sweep(folder: Path, grace_s: float) -> int:
    """Delete files retired, or left by a dead writer, at least ``grace_s`` seconds ago."""
    left = [*folder.glob(f"*{_RETIRED}"), *folder.glob(".*.tmp")]
    oldest = _now(folder) - grace_s if left else 0.0
    old = [path for path in left if _is_older(path, oldest)]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def _now(folder: Path) -> float:
    """Return the time by the clock of the file system, which may be another machine's."""
    probe = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _is_older(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime <= moment
    except FileNotFoundError:
        return False
