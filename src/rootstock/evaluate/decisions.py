"""Decisions on the test images, stored so that nothing has to be inferred again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from rootstock.data.manifest import ImageRow
from rootstock.errors import ArtifactError
from rootstock.system.tables import DAMAGE, read_table, write_rows

RERUN_HINT = "run the stage `evaluate` again"


def write_decisions(path: Path, rows: Sequence[ImageRow], decisions: np.ndarray) -> None:
    """Write decisions [N,...] of images as Parquet: path, sha256, and the flat decision."""
    kind = pa.list_(pa.from_numpy_dtype(decisions.dtype), math.prod(decisions.shape[1:]))
    schema = pa.schema([("path", pa.string()), ("sha256", pa.string()), ("decision", kind)])
    shape = ",".join(map(str, decisions.shape[1:]))
    flat = decisions.reshape(len(rows), -1)
    write_rows(
        [(row.path, row.sha256, decision) for row, decision in zip(rows, flat, strict=True)],
        schema.with_metadata({"shape": shape}),
        path,
    )


def read_decisions(path: Path, rows: Sequence[ImageRow]) -> np.ndarray:
    """Read the file of `write_decisions` for the same images.

    Raises:
        ArtifactError: The file is missing, damaged, or of other images.
    """
    try:
        table = read_table(path)
        shape = [int(size) for size in table.schema.metadata[b"shape"].decode().split(",")]
        values = table["decision"].combine_chunks().flatten().to_numpy()
        decisions = values.reshape(len(table), *shape)
        images = list(zip(table["path"].to_pylist(), table["sha256"].to_pylist(), strict=True))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing", hint=RERUN_HINT) from None
    except DAMAGE as error:
        raise ArtifactError(f"{path} has no decisions: {error}", hint=RERUN_HINT) from None
    if images != [(row.path, row.sha256) for row in rows]:
        raise ArtifactError(f"{path} was made from other test images", hint=RERUN_HINT)
    return decisions
