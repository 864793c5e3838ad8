"""What was seen of each file before: an image that is as it was is not read again.

As git does it, a file of the same size and time of change is taken for the same file. One that was
written in the seconds before it was read is not trusted: it may be written again within one tick
of the file system's clock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import PIL
import pyarrow as pa
import pyarrow.parquet

from rootstock.data.decode import DecodeLimits
from rootstock.data.duplicates import Fingerprint
from rootstock.data.files import write_atomic
from rootstock.data.inspect import Inspected

VERSION = 1
"""Raised whenever the same file would be seen differently."""
UNSURE_NS = 2_000_000_000
_PASSING = ("unreadable", "crashed", "missing", "file-name")
"""Faults that may be gone the next time though the file has not changed."""
FACTS = (
    ("sha256", pa.string()),
    ("bytes", pa.int64()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("mode", pa.string()),
    ("format", pa.string()),
)
"""Columns of what a file is, here and in the manifest."""
_PLAIN = (*(name for name, _ in FACTS), "reason")
_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("changed", pa.int64()),
        *FACTS,
        ("reason", pa.string()),
        ("hash", pa.uint64()),
        ("thumb", pa.binary()),
    ]
)


class Stamp(NamedTuple):
    """Size in bytes and time of change in nanoseconds."""

    size: int
    changed: int


def stamp(path: Path | str) -> Stamp | None:
    """The file's stamp; None where it cannot be had."""
    try:
        facts = os.stat(path)  # noqa: PTH116 - a third of pathlib's time, for each image
    except (OSError, ValueError):
        return None
    return Stamp(facts.st_size, facts.st_mtime_ns)


@dataclass(frozen=True)
class SeenFiles:
    """A Parquet file of what was seen below the folder ``base`` under these limits."""

    path: Path
    base: Path
    limits: DecodeLimits

    def recall(self, names: Sequence[str], stamps: Sequence[Stamp | None]) -> dict[int, Inspected]:
        """What is known of these files, by position; nothing where the file cannot be used."""
        try:
            table = pa.parquet.read_table(self.path)
        except (OSError, pa.ArrowInvalid):
            return {}
        if (table.schema.metadata or {}).get(b"rootstock") != self._rules:
            return {}
        places = {name: place for place, name in enumerate(table["path"].to_pylist())}
        columns = {name: table[name].to_pylist() for name in _SCHEMA.names}
        found = {}
        for position, (name, now) in enumerate(zip(names, stamps, strict=True)):
            place = places.get(name)
            if place is None or now != (columns["size"][place], columns["changed"][place]):
                continue
            found[position] = _inspected({key: values[place] for key, values in columns.items()})
        return found

    def remember(
        self,
        names: Sequence[str],
        stamps: Sequence[Stamp | None],
        inspected: Sequence[Inspected],
        *,
        since: float,
    ) -> None:
        """Write what was seen; ``since`` is the time in seconds before the first was read."""
        sure = since * 1e9 - UNSURE_NS
        rows = [
            (name, mark, image)
            for name, mark, image in zip(names, stamps, inspected, strict=True)
            if mark is not None and mark.changed < sure and image.reason not in _PASSING
        ]
        columns: dict[str, list[Any]] = {
            "path": [name for name, _, _ in rows],
            "size": [mark.size for _, mark, _ in rows],
            "changed": [mark.changed for _, mark, _ in rows],
            **{key: [getattr(image, key) for _, _, image in rows] for key in _PLAIN},
            "hash": [image.fingerprint and image.fingerprint.hash for _, _, image in rows],
            "thumb": [image.fingerprint and image.fingerprint.thumb for _, _, image in rows],
        }
        arrays = [pa.array(columns[name], _SCHEMA.field(name).type) for name in _SCHEMA.names]
        table = pa.table(arrays, schema=_SCHEMA.with_metadata({b"rootstock": self._rules}))
        with write_atomic(self.path) as temporary:
            pa.parquet.write_table(table, temporary)

    @property
    def _rules(self) -> bytes:
        """What else decides what is seen: another value, and nothing is known."""
        facts = {"version": VERSION, "pillow": PIL.__version__, "base": str(self.base.absolute())}
        return json.dumps(facts | asdict(self.limits), sort_keys=True).encode()


def _inspected(row: Mapping[str, Any]) -> Inspected:
    facts = {key: row[key] for key in _PLAIN}
    seen = None if row["thumb"] is None else Fingerprint(row["hash"], row["thumb"])
    return Inspected(**facts, fingerprint=seen)
