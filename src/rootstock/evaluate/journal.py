"""Read a service's journal: one row per answer, in Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_journal(folder: Path, *, request_id: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the answers, newest file first; only those of ``request_id`` if it is given.

    A file that cannot be read, such as one just deleted, is skipped.
    """
    # A service without a journal runs without pyarrow.
    from rootstock.system.tables import DAMAGE, read_table

    for path in sorted(folder.glob("*.parquet"), reverse=True):
        try:
            table = read_table(path)
            if request_id is not None:
                import pyarrow.compute as pc

                table = table.filter(pc.equal(table["request_id"], request_id))
            rows: list[dict[str, Any]] = table.to_pylist()
        except DAMAGE:
            continue
        yield from rows
