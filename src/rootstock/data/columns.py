"""The columns of a table of images: their cells and their roles."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from rootstock.data.coco import COCO_ENDING, NOTE, read_coco
from rootstock.data.entry import TABLE_ENDINGS, clean_label
from rootstock.errors import DataError
from rootstock.system.escape import escape_terminal

_ARCHIVE_ENDINGS = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_DELIMITERS = (",", ";", "\t")
_UNREADABLE = (pa.ArrowException, csv.Error, OSError, TypeError, ValueError)
ColumnSettings = Mapping[str, str | Sequence[str]]
"""`data.columns`: maps a role to the name of its column, or to several names."""
Kind = Literal["binary", "number", "list", "text"]
MIN_KIND_SHARE = 0.9
"""Cells of a column that must be numbers, or 0 and 1, before the other cells count as wrong."""
TRUTH_VALUES = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
MAX_METADATA_COLUMNS = 64
MAX_METADATA_CHARACTERS = 200
"""A column with a longer name is not metadata; a longer cell is cut."""


@dataclass(frozen=True)
class ColumnRoles:
    """The settings about a table's columns.

    ``columns`` are the settings of `data.columns`. Columns in ``aside``, such as the group, hold no
    target; ``required`` are those of them that the table must have.
    """

    columns: ColumnSettings = field(default_factory=dict)
    aside: Collection[str] = ()
    required: Collection[str] = ()

    def names(self, role: str) -> tuple[str, ...]:
        """Return the names set for ``role``; empty if none are set."""
        names = self.columns.get(role, ())
        return (names,) if isinstance(names, str) else tuple(names)


@dataclass(frozen=True)
class Columns:
    """The columns of the table at ``path``."""

    path: Path
    table: pa.Table
    roles: ColumnRoles = field(default_factory=ColumnRoles)
    notes: list[str] = field(default_factory=list)
    """Notes of the task about the table, for the user."""

    @classmethod
    def read(cls, path: Path, roles: ColumnRoles) -> Columns:
        """Read a CSV or Parquet file.

        Raises:
            DataError: the file is not a table, or has no column of a name in the settings.
        """
        columns = cls(path, _read_table(path), roles)
        wanted = [(role, name) for role in roles.columns for name in roles.names(role)]
        needed = [*wanted, *((f"`{name}`", name) for name in roles.required)]
        for role, name in needed:
            if name not in columns.table.column_names:
                raise DataError(
                    f"{path} has no column {escape_terminal(name)} for {role}; its columns are "
                    f"{columns.describe_names()}",
                    hint="correct data.columns, data.group or data.time",
                )
        return columns

    @property
    def note(self) -> str:
        """Notes about the table for the user; empty if there are none."""
        return (self.table.schema.metadata or {}).get(NOTE, b"").decode()

    def describe_names(self) -> str:
        """Return the names of all columns, for a message."""
        return ", ".join(map(escape_terminal, self.table.column_names))

    def find(self, role: str) -> tuple[str, ...]:
        """Return the columns for ``role``: those in the settings, or the one with this name.

        The case of the name is ignored if the table has no exact match.
        Raises:
            DataError: the table has more than one column of this name.
        """
        there = self.table.column_names
        same = (role,) if role in there else tuple(n for n in there if n.lower() == role)
        if len(same) > 1 and not self.roles.names(role):
            raise DataError(
                f"{self.path} has several columns named {role}: {', '.join(same)}",
                hint="rename or remove all but one",
            )
        names = self.roles.names(role) or same
        for name in names:
            if self.table.column_names.count(name) > 1:
                raise DataError(
                    f"{self.path} has several columns named {name}",
                    hint="rename or remove all but one",
                )
        return names

    @cached_property
    def unnamed(self) -> tuple[str, ...]:
        """Names of the columns that may hold targets: those without another role."""
        used = {*self.find("path"), *self.find("split"), *self.roles.aside}
        return tuple(name for name in self._single_names if name not in used)

    @cached_property
    def _single_names(self) -> tuple[str, ...]:
        names = self.table.column_names
        return tuple(name for name in dict.fromkeys(names) if name and names.count(name) == 1)

    def kind(self, name: str) -> Kind:
        """Return the kind of value in nearly all cells of a column."""
        if self.is_list(name):
            return "list"
        try:
            cells = self.texts(name)
        except DataError:
            return "text"
        least = MIN_KIND_SHARE * len(cells)
        if sum(cell.lower() in TRUTH_VALUES for cell in cells) >= least:
            return "binary"
        return "number" if sum(map(_is_number, cells)) >= least else "text"

    def is_list(self, name: str) -> bool:
        """Return whether each cell of a column is a list."""
        kind = self.table[name].type
        return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))

    def lists(self, name: str) -> list[list[str]]:
        """Return the cells of a column of lists; a missing cell is empty."""
        cells = self.table[name].to_pylist()
        return [
            [clean_label(str(item)) for item in cell or () if item is not None] for cell in cells
        ]

    def texts(self, name: str, *, clean: bool = True) -> list[str]:
        """Return the cells of a column without surrounding blanks; "" for a missing value.

        ``clean``: normalise them as labels.
        Raises:
            DataError: the cells are not single values.
        """
        kind = self.table[name].type
        try:
            if pa.types.is_nested(kind):
                raise pa.ArrowInvalid(f"{kind} is not a single value")
            texts = pc.cast(self.table[name], pa.string()).to_pylist()
        except (pa.ArrowException, UnicodeDecodeError):
            raise DataError(
                f"the column {name} of {self.path} holds {kind}, not one text or number per row",
                hint="write one text or number in each row",
            ) from None
        return [clean_label(value or "") if clean else (value or "").strip() for value in texts]

    def join(self, names: Sequence[str]) -> list[str]:
        """Return one text per row: the only column's, or a JSON list of all columns."""
        columns = [self.texts(name) for name in names]
        if len(columns) == 1:
            return columns[0]
        return [json.dumps(row, ensure_ascii=False) for row in zip(*columns, strict=True)]

    def metadata(self, targets: Collection[str]) -> tuple[dict[str, list[str]], list[str]]:
        """Return the cells of the columns that only describe the images, and warnings."""
        used = {*self.find("path"), *self.find("split"), *targets}
        names = [
            name
            for name in self._single_names
            if name not in used and len(name) <= MAX_METADATA_CHARACTERS
        ]
        kept: dict[str, list[str]] = {}
        # Columns that the settings name are always kept, even if there are too many.
        for name in sorted(names, key=lambda name: name not in self.roles.aside):
            if len(kept) == MAX_METADATA_COLUMNS:
                return kept, [
                    f"{self.path} has {len(names)} columns that describe the images; only the "
                    f"first {MAX_METADATA_COLUMNS} are kept"
                ]
            try:
                cells = self.texts(name)
            except DataError:
                continue
            kept[name] = [cell[:MAX_METADATA_CHARACTERS] for cell in cells]
        return kept, []


def read_column_names(path: Path) -> list[str]:
    """Return the names of a table's columns; none if it cannot be read."""
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return list(pa.parquet.read_schema(path).names)
        return [name.strip() for name in _read_header(path)[1]]
    except _UNREADABLE:
        return []


def _read_table(path: Path) -> pa.Table:
    ending = path.suffix.lower()
    if ending == COCO_ENDING:
        return read_coco(path)
    if ending not in TABLE_ENDINGS:
        raise DataError(
            f"{path} is a file, but not a CSV or Parquet table",
            hint="unpack it, and pass the folder"
            if ending in _ARCHIVE_ENDINGS
            else f"pass a folder of class folders, a table ({', '.join(TABLE_ENDINGS)}), or "
            "annotations in COCO format (.json)",
        )
    try:
        if ending in (".parquet", ".pq"):
            table = pa.parquet.read_table(path)
            return table.rename_columns([name.strip() for name in table.column_names])
        delimiter, names = _read_header(path)
        # Read everything as text: a label such as 007 must not become the number 7.
        table = pa.csv.read_csv(
            path,
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
        table = table.rename_columns([name.strip() for name in table.column_names])
        return _without_empty_end(table)
    except _UNREADABLE as error:
        raise DataError(
            f"{path} is not a readable table: {error}",
            hint="save it as CSV in UTF-8 or as Parquet",
        ) from None


def _without_empty_end(table: pa.Table) -> pa.Table:
    """Return the table without the empty rows that spreadsheets write at the end."""
    length = table.num_rows
    while length and not any(
        (column[length - 1].as_py() or "").strip() for column in table.columns
    ):
        length -= 1
    return table.slice(0, length)


def _read_header(path: Path) -> tuple[str, list[str]]:
    """Return the delimiter of a CSV file, and the names of its columns."""
    with path.open(encoding="utf-8-sig") as file:
        header = file.readline().rstrip("\r\n")
    delimiter = max(_DELIMITERS, key=header.count)
    return delimiter, next(csv.reader([header], delimiter=delimiter), [])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
