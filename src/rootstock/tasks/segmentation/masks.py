"""Masks as texts in the manifest: classes on a grid of points, and the names of the classes."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

POINTS = 112
"""Points along each side of an image whose classes are stored. They are evenly spaced, so shares
and overlaps on them are those of the whole mask, up to sampling noise."""
IGNORED = 255
"""The value of a point that is neither learned nor counted."""
MAX_CLASSES = 255


def write_text(grid: np.ndarray, names: Sequence[str]) -> str:
    """Return the text of class numbers uint8[P,P] for classes ``names``.

    Runs of equal numbers are written out, so that the text is the same on every machine.
    """
    flat = grid.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[0] ^ 1))
    lengths = np.diff(starts, append=len(flat)).astype("<u2").tobytes()
    runs = base64.b64encode(flat[starts].tobytes() + lengths).decode()
    return json.dumps({"classes": list(names), "runs": runs}, ensure_ascii=False)


def read_names(text: str) -> tuple[str, ...]:
    """Return the names of the classes of a text."""
    return _read(text)[0]


def read_grid(text: str) -> np.ndarray:
    """Return the class numbers uint8[P,P] of a text that `write_text` wrote."""
    return _read(text)[1]


def is_settled(text: str) -> bool:
    """Return whether a text contains a mask; otherwise it names a file."""
    return text.startswith("{")


def list_present(text: str) -> list[str]:
    """Return the names of the classes that have a point in a text."""
    names, grid = _read(text)
    return [names[number] for number in np.unique(grid).tolist() if number != IGNORED]


def sample_points(size: int) -> np.ndarray:
    """Return int64[P]: the pixel of a side of ``size`` pixels that each point is in."""
    return ((np.arange(POINTS) + 0.5) * size / POINTS).astype(np.int64)


@lru_cache(1024)
def _read(text: str) -> tuple[tuple[str, ...], np.ndarray]:
    tree = json.loads(text)
    content = base64.b64decode(tree["runs"])
    count = len(content) // 3
    numbers = np.frombuffer(content[:count], np.uint8)
    grid = np.repeat(numbers, np.frombuffer(content[count:], "<u2")).reshape(POINTS, POINTS)
    return tuple(tree["classes"]), grid
