"""Remember the result for each file, so that an unchanged image is not read again.

A file with the same size, number (inode) and times of change counts as unchanged, as in git: the
time of the content can be set back, but not the time of the entry. A file that was written in
the seconds before it was read is not trusted: it may change again within one tick of the file
system's clock.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import PIL
import pyarrow as pa

from rootstock.data.inspect import Inspected, inspect_images
from rootstock.data.layout import Layout
from rootstock.data.limits import DecodeLimits
from rootstock.system.tables import DAMAGE, read_table, write_rows

VERSION = 4
"""Increased whenever the same file would give a different result."""
MIN_AGE_NS = 2_000_000_000
"""Resolution of content times: some file systems round them to two seconds."""
MIN_ENTRY_AGE_NS = 100_000_000
"""Resolution of entry times, which come from the system clock."""
FILE_COLUMNS = (
    ("sha256", pa.string()),
    ("bytes", pa.int64()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("mode", pa.string()),
    ("format", pa.string()),
)
"""Columns that describe a file, here and in the manifest."""
_INSPECTED_COLUMNS = (
    *FILE_COLUMNS,
    ("reason", pa.string()),
    ("changed", pa.int64()),
    ("status_changed", pa.int64()),
    ("inode", pa.uint64()),
    ("thumb", pa.binary()),
    ("tones", pa.list_(pa.float64())),
    ("flat", pa.bool_()),
)
"""The fields of `Inspected`, in order."""
_SCHEMA = pa.schema([("path", pa.string()), *_INSPECTED_COLUMNS])


def inspect_layout(
    layout: Layout,
    *,
    limits: DecodeLimits,
    workers: int | None,
    cache_file: Path | None,
    on_inspected: Callable[[list[Inspected]], None] | None = None,
) -> list[Inspected]:
    """Return the result for each entry: from ``cache_file`` if it is known, otherwise from the
    file.

    ``workers`` is as in `inspect_images`; ``cache_file`` is a file of `InspectionCache`, or None.
    ``on_inspected`` is called before that file is written.
    """
    started = time.time()
    names = [entry.path for entry in layout.entries]
    # Plain text: creating 100,000 pathlib objects costs more than all checks.
    paths = [f"{layout.base}/{name}" for name in names]
    cache = InspectionCache(cache_file, layout.base, limits) if cache_file else None
    known = cache.recall(names) if cache else {}
    new = [i for i in range(len(paths)) if i not in known]
    fresh = inspect_images([paths[i] for i in new], limits=limits, workers=workers)
    known |= dict(zip(new, fresh, strict=True))
    inspected = [known[i] for i in range(len(paths))]
    if on_inspected:
        on_inspected(inspected)
    if new and cache:
        cache.remember(names, inspected, since=started)
    return inspected


@dataclass(frozen=True)
class InspectionCache:
    """A Parquet file of results for the folder ``base`` under the given limits."""

    path: Path
    base: Path
    limits: DecodeLimits

    def recall(self, names: Sequence[str]) -> dict[int, Inspected]:
        """Return the known results by position; empty if the file cannot be used."""
        try:
            table = read_table(self.path)
            if (
                table.schema != _SCHEMA
                or (table.schema.metadata or {})[b"rootstock"] != self._rules
            ):
                return {}
            paths, *columns = (table[name].to_pylist() for name in _SCHEMA.names)
            images = dict(zip(paths, map(Inspected, *columns), strict=True))
        except DAMAGE:
            return {}
        known = {position: images[name] for position, name in enumerate(names) if name in images}
        return {at: image for at, image in known.items() if self._is_as_it_was(names[at], image)}

    def remember(
        self, names: Sequence[str], inspected: Sequence[Inspected], *, since: float
    ) -> None:
        """Write the results; ``since`` is the time in seconds before the first file was read."""
        now = since * 1e9
        rows = [
            (name, *image)
            for name, image in zip(names, inspected, strict=True)
            # A file that is unreadable now may become readable without a change.
            if image.changed is not None
            and image.changed < now - MIN_AGE_NS
            and (image.status_changed or 0) < now - MIN_ENTRY_AGE_NS
            and image.reason != "unreadable"
        ]
        write_rows(rows, _SCHEMA.with_metadata({b"rootstock": self._rules}), self.path)

    def _is_as_it_was(self, name: str, image: Inspected) -> bool:
        try:
            status = os.stat(f"{self.base}/{name}")  # noqa: PTH116 - as for reading it
        except (OSError, ValueError):
            return False
        now = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        return now == (image.bytes, image.changed, image.status_changed, image.inode)

    @property
    def _rules(self) -> bytes:
        """Return all other settings that affect a result: if they change, nothing is known."""
        rules = {"version": VERSION, "pillow": PIL.__version__, "base": str(self.base.absolute())}
        return json.dumps(rules | asdict(self.limits), sort_keys=True).encode()
