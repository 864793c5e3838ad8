"""What was seen of each file before: an image that is as it was is not read again.

A file of the same size, number (inode) and times of change is taken for the same file, as git
does: its content's time can be set back, that of its entry cannot. One that was written in the
seconds before it was read is not trusted: it may be written again within one tick of the file
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
"""Raised whenever the same file would be seen differently."""
MIN_AGE_NS = 2_000_000_000
"""Of the content's time, which some file systems keep in steps of two seconds."""
MIN_ENTRY_AGE_NS = 100_000_000
"""Of the entry's time, which is the system's own clock."""
FILE_COLUMNS = (
    ("sha256", pa.string()),
    ("bytes", pa.int64()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("mode", pa.string()),
    ("format", pa.string()),
)
"""Columns of what a file is, here and in the manifest."""
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
"""The fields of `Inspected`, in its order."""
_SCHEMA = pa.schema([("path", pa.string()), *_INSPECTED_COLUMNS])


def inspect_layout(
    layout: Layout,
    *,
    limits: DecodeLimits,
    workers: int | None,
    cache_file: Path | None,
    on_inspected: Callable[[list[Inspected]], None] | None = None,
) -> list[Inspected]:
    """Return the inspection of each entry: from ``cache_file`` if it is known, or of the file.

    ``workers`` as in `inspect_images`; ``cache_file`` is a file of `InspectionCache`, or None.
    ``on_inspected`` is called before that file is written.
    """
    started = time.time()
    names = [entry.path for entry in layout.entries]
    # Text: 100,000 objects of pathlib cost more than all that is asked of them.
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
    """A Parquet file of what was seen below the folder ``base`` under these limits."""

    path: Path
    base: Path
    limits: DecodeLimits

    def recall(self, names: Sequence[str]) -> dict[int, Inspected]:
        """What is known of these files, by position; nothing where the file cannot be used."""
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
        """Write what was seen; ``since`` is the time in seconds before the first was read."""
        now = since * 1e9
        rows = [
            (name, *image)
            for name, image in zip(names, inspected, strict=True)
            # A file that cannot be read now may be readable though it has not changed.
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
        """What else decides what is seen: another value, and nothing is known."""
        rules = {"version": VERSION, "pillow": PIL.__version__, "base": str(self.base.absolute())}
        return json.dumps(rules | asdict(self.limits), sort_keys=True).encode()
