"""Read arrays from a safetensors file with numpy only.

The format: https://huggingface.co/docs/safetensors (8 bytes with the length of a JSON header, the
header, then the arrays' bytes in little-endian order).
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

TYPES = {
    "F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8", "U8": "u1", "BOOL": "?"
}  # fmt: skip


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a whole safetensors file, or has a type that is not in `TYPES`.
    """
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    if len(content) < 8 or start > len(content):
        raise ValueError("the file is truncated")
    data = memoryview(content)[start:]
    try:
        header = json.loads(content[8:start])
        return {
            name: _read_array(data, entry)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (AttributeError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(f"the header is wrong: {error}") from None


def _read_array(data: memoryview, entry: dict) -> np.ndarray:
    kind, shape = np.dtype(TYPES[entry["dtype"]]), tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end <= len(data) or end - begin != kind.itemsize * math.prod(shape):
        raise ValueError("the file is truncated, or its header is wrong")
    return np.frombuffer(data[begin:end], kind).reshape(shape)
