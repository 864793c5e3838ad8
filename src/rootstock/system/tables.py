"""Parquet files with a checksum per page, so that reading detects damage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from rootstock.system.files import write_atomic

DAMAGE = (OSError, pa.ArrowException, KeyError, TypeError, ValueError)
"""Errors when reading a damaged or foreign file."""


def write_rows(rows: Sequence[tuple[Any, ...]], schema: pa.Schema, path: Path) -> None:
    """Write rows, in the schema's order, whole or not at all; the same rows give the same bytes.

    Raises:
        ArtifactError: the file cannot be written.
    """
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(one, field.type) for one, field in zip(columns, schema, strict=True)]
    table = pa.table(arrays, schema=schema)
    with write_atomic(path) as temporary:
        pa.parquet.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_table(path: Path) -> pa.Table:
    """Read a file that `write_rows` wrote, or any Parquet file; raise one of `DAMAGE`."""
    # Not `pyarrow.parquet.read_table`, whose imports take a sixth of a second.
    with pa.parquet.ParquetFile(path, page_checksum_verification=True) as file:
        return file.read()
