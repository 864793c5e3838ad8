"""Parquet files with a checksum on each page, so that a damaged one is noticed when it is read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from rootstock.data.files import write_atomic

DAMAGE = (OSError, pa.ArrowException, KeyError, TypeError, ValueError)
"""What reading a damaged or foreign file and making sense of it may raise."""


def write_table(table: pa.Table, path: Path) -> None:
    """Write whole or not at all; the same table gives the same bytes.

    Raises:
        ArtifactError: the file cannot be written.
    """
    with write_atomic(path) as temporary:
        pa.parquet.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_table(path: Path) -> pa.Table:
    """Read what `write_table` wrote, or any Parquet file; one of `DAMAGE` tells what is wrong."""
    # Not `pyarrow.parquet.read_table`, which imports a sixth of a second's worth of modules.
    with pa.parquet.ParquetFile(path, page_checksum_verification=True) as file:
        return file.read()
