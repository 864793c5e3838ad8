"""The meaning of numbers or colours in masks: `classes.txt` or `classes.csv` next to the masks."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rootstock.errors import DataError
from rootstock.system.escape import list_names
from rootstock.tasks.segmentation.masks import IGNORED, MAX_CLASSES

FILES = ("classes.csv", "classes.txt")
IGNORED_NAMES = frozenset({"ignore", "ignored", "unlabeled", "unlabelled", "void"})
"""Names, in lower case, of areas that are neither learned nor counted."""
MAX_INDEX = 255
_COLOUR = re.compile(r"#?([0-9a-fA-F]{6})")
_TRUE = frozenset({"1", "true", "yes"})
_HINT = (
    "classes.txt has one class per line, in the order of the indexes; classes.csv has the columns "
    "name and, if you like, index, colour (such as #804080) and ignore"
)


@dataclass(frozen=True)
class ClassList:
    """``numbers`` int64[256]: the class number of each index, -1 if it has no class.

    ``colours``: the index of each colour, red * 65536 + green * 256 + blue. ``source`` is the
    file, or None.
    """

    names: tuple[str, ...]
    numbers: np.ndarray
    colours: Mapping[int, int] = field(default_factory=dict)
    source: Path | None = None

    @classmethod
    def plain(cls, highest: int) -> ClassList:
        """Return classes named by their indexes, up to ``highest``; 255 is ignored."""
        numbers = np.full(MAX_INDEX + 1, -1)
        numbers[: highest + 1] = np.arange(highest + 1)
        numbers[MAX_INDEX] = IGNORED
        return cls(tuple(map(str, range(highest + 1))), numbers)

    @classmethod
    def binary(cls, listed: ClassList | None) -> ClassList:
        """Return the classes of masks that are black (0) and white (255)."""
        numbers = np.full(MAX_INDEX + 1, -1)
        numbers[[0, MAX_INDEX]] = 0, 1
        names = listed.names if listed else ("background", "foreground")
        return cls(names, numbers, source=listed.source if listed else None)


def find_classes(base: Path) -> ClassList | None:
    """Read the classes of the data set in the folder ``base``; None if it has no such file.

    Raises:
        DataError: the file cannot be read, or names a class or an index twice.
    """
    for name in FILES:
        path = base / name
        if path.is_file():
            try:
                text = path.read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{path} cannot be read: {error}", hint=_HINT) from None
            rows = _read_csv(path, text) if name.endswith(".csv") else _read_lines(text)
            return _make(path, rows)
    return None


@dataclass(frozen=True)
class _Row:
    index: int
    name: str
    colour: int | None = None
    ignored: bool = False


def _read_lines(text: str) -> list[_Row]:
    names = [line.strip() for line in text.splitlines()]
    while names and not names[-1]:
        names.pop()
    return [_Row(index, name) for index, name in enumerate(names)]


def _read_csv(path: Path, text: str) -> list[_Row]:
    rows = []
    for place, cells in enumerate(csv.DictReader(text.splitlines())):
        named = {str(key).strip().lower(): (cell or "").strip() for key, cell in cells.items()}
        index, colour = named.get("index", ""), named.get("colour", named.get("color", ""))
        match = _COLOUR.fullmatch(colour)
        if "name" not in named or (index and not index.isdecimal()) or (colour and not match):
            raise DataError(f"{path}, row {place + 1}, cannot be read: {dict(cells)}", hint=_HINT)
        rows.append(
            _Row(
                int(index) if index else place,
                named["name"],
                int(match[1], 16) if match else None,
                named.get("ignore", "").lower() in _TRUE,
            )
        )
    return rows


def _make(path: Path, rows: Sequence[_Row]) -> ClassList:
    names: list[str] = []
    numbers = np.full(MAX_INDEX + 1, -1)
    numbers[MAX_INDEX] = IGNORED
    colours: dict[int, int] = {}
    seen: set[int] = set()
    for row in rows:
        if not row.name or row.index > MAX_INDEX or row.index in seen or row.name in names:
            raise DataError(
                f"{path}: the class {row.name!r} of index {row.index} is without a name, listed "
                f"twice, or above {MAX_INDEX}",
                hint=_HINT,
            )
        seen.add(row.index)
        if row.ignored or row.name.lower() in IGNORED_NAMES:
            numbers[row.index] = IGNORED
        else:
            numbers[row.index] = len(names)
            names.append(row.name)
        if row.colour is not None:
            if row.colour in colours:
                raise DataError(f"{path} gives the colour #{row.colour:06x} twice", hint=_HINT)
            colours[row.colour] = row.index
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(
            f"{path} names {len(names)} classes ({list_names(names[:3])}), but must name 2 to "
            f"{MAX_CLASSES}",
            hint=_HINT,
        )
    return ClassList(tuple(names), numbers, colours, path)
