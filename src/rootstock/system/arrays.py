"""Read arrays from a safetensors file with numpy only.

The format: https://huggingface.co/docs/safetensors (8 bytes with the length of a JSON header, the
header, then the arrays' bytes in little-endian order).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np

TYPES = {
    "F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8", "I8": "i1", "U8": "u1",
    "BOOL": "?",
}  # fmt: skip


def read_arrays(path: Path, *, prefix: str = "") -> dict[str, np.ndarray]:
    """Return the arrays of a file by name, only those whose names begin with ``prefix``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a whole safetensors file, or has a type that is not in `TYPES`.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or 8 + length > size:
            raise ValueError("the file is truncated")
        try:
            header = json.loads(file.read(length))
            entries = {
                name: entry
                for name, entry in header.items()
                if name != "__metadata__" and name.startswith(prefix)
            }
            return {
                name: _read_array(file, 8 + length, size, entry) for name, entry in entries.items()
            }
        except (AttributeError, KeyError, RecursionError, TypeError) as error:
            raise ValueError(f"the header is wrong: {error}") from None


def _read_array(file: BinaryIO, start: int, size: int, entry: dict) -> np.ndarray:
    kind, shape = np.dtype(TYPES[entry["dtype"]]), tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end <= size - start or end - begin != kind.itemsize * math.prod(shape):
        raise ValueError("the file is truncated, or its header is wrong")
    file.seek(start + begin)
    return np.frombuffer(file.read(end - begin), kind).reshape(shape)
