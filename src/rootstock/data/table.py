"""A CSV or Parquet file that lists images with their targets."""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from rootstock.data.entry import Entry, clean_label, count, fold_label
from rootstock.data.split_folders import LAYOUT_HINT
from rootstock.data.split_names import read_split_name, settle_eval
from rootstock.data.splits import SPLITS
from rootstock.errors import DataError
from rootstock.system.escape import escape_terminal, list_names

TABLE_ENDINGS = (".csv", ".tsv", ".parquet", ".pq")
_DELIMITERS = (",", ";", "\t")
MAX_PATH_CHARACTERS = 4096
"""Linux has no longer paths; without a bound, a long one of `..` takes minutes to look for."""
_UNREADABLE = (pa.ArrowException, csv.Error, OSError, TypeError, ValueError)
_DRIVE = re.compile(r"[A-Za-z]:/")


@dataclass
class TableReader:
    """Reads the table at ``path``; ``warnings`` grow while it does."""

    path: Path
    columns: Sequence[str]
    need_train: bool = True
    warnings: list[str] = field(default_factory=list)

    def read(self) -> list[Entry]:
        """Return the images that are listed.

        Raises:
            DataError: it is no table, or a row or column is wrong.
        """
        table = self._read_table()
        needed = {"path", *self.columns}
        for name in sorted(needed | {"split"}):
            if table.column_names.count(name) > 1:
                raise DataError(
                    f"{self.path} has more than one column {name}", hint="rename or remove one"
                )
        missing = needed - set(table.column_names)
        if missing:
            raise DataError(
                f"{self.path} has no column {' and no column '.join(sorted(missing))}; "
                f"it has {list_names(table.column_names)}",
                hint=f"its first line names the columns: path,{','.join(self.columns)} and, if you "
                "like, split",
            )
        targets = _joined([self._texts(table, name) for name in self.columns])
        paths = self._texts(table, "path", clean=False)
        for number, (path, target) in enumerate(zip(paths, targets, strict=True), start=1):
            if not path or not target:
                raise DataError(
                    f"{self.path}, row {number}: path or label is empty",
                    hint="give each image a path and a label, or remove the row",
                )
        paths = self._find_files(paths)
        splits: list[str | None] = [None] * len(paths)
        if "split" in table.column_names:
            splits = self._read_splits(self._texts(table, "split"))
        path, count = Counter(paths).most_common(1)[0] if paths else ("", 0)
        if count > 1:
            raise DataError(
                f"{self.path} lists {escape_terminal(path)} {count} times",
                hint="keep one row an image",
            )
        return list(map(Entry, paths, targets, splits))

    def _read_table(self) -> pa.Table:
        ending = self.path.suffix.lower()
        if ending not in TABLE_ENDINGS:
            raise DataError(
                f"{self.path} is a file, but not a CSV or Parquet table", hint=LAYOUT_HINT
            )
        try:
            if ending in (".parquet", ".pq"):
                table = pa.parquet.read_table(self.path)
                return table.rename_columns([name.strip() for name in table.column_names])
            delimiter, names = _read_header(self.path)
            # Everything is text: labels such as 007 must not become the number 7.
            table = pa.csv.read_csv(
                self.path,
                parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string())
                ),
            )
            return table.rename_columns([name.strip() for name in table.column_names])
        except _UNREADABLE as error:
            raise DataError(
                f"{self.path} cannot be read as a table: {error}",
                hint="save it as CSV in UTF-8 or as Parquet",
            ) from None

    def _texts(self, table: pa.Table, name: str, *, clean: bool = True) -> list[str]:
        """Return the cells of a column without blanks at their ends; "" for a missing value.

        ``clean``: as labels are written.
        """
        kind = table[name].type
        try:
            if pa.types.is_nested(kind):
                raise pa.ArrowInvalid(f"{kind} is not one value")
            texts = pc.cast(table[name], pa.string()).to_pylist()
        except (pa.ArrowException, UnicodeDecodeError):
            raise DataError(
                f"the column {name} of {self.path} holds {kind}, not one text or number a row",
                hint="write one text or number into each row of it",
            ) from None
        return [clean_label(value or "") if clean else (value or "").strip() for value in texts]

    def _read_splits(self, cells: Sequence[str]) -> list[str | None]:
        names = {cell: read_split_name(cell) for cell in set(cells) - {""}}
        for number, cell in enumerate(cells, start=1):
            name = names.get(cell)
            if cell and not (name and name.bare):
                raise DataError(
                    f"{self.path}, row {number}: split {cell!r} is not one of {', '.join(SPLITS)}",
                    hint="correct it, or leave the cell empty",
                )
        splits = settle_eval({cell: name.split for cell, name in names.items() if name})
        if splits and self.need_train and "train" not in splits.values():
            raise DataError(
                f"{self.path} gives splits but no row of the split train",
                hint="name the training images `train`, or leave the column empty",
            )
        return [splits.get(cell) for cell in cells]

    def _find_files(self, texts: Sequence[str]) -> list[str]:
        """Return paths relative to the table's folder, as the files on disk are called."""
        disk = _Names(self.path.parent)
        paths, respelt, missing = [], [], []
        for number, text in enumerate(texts, start=1):
            wanted = self._relative(number, text, disk)
            path = disk.find(wanted)
            if path is None:
                missing.append(wanted)
            elif path != text and path != str(PurePosixPath(text)) and text[0] != "/":
                respelt.append(f"{text} for {path}")
            paths.append(path or wanted)
        if respelt:
            self.warnings.append(
                f"{count(len(respelt), 'path')} not spelt as the files are called (backslashes, "
                f"case, or how letters are composed); the files are used: {respelt[0]}"
            )
        if missing:
            there = disk.find_similar(missing[0])
            self.warnings.append(
                f"{len(missing)} of {count(len(paths), 'listed file')} not found, the first: "
                f"{self.path.parent / missing[0]}{f'; {there} is there' if there else ''}"
            )
        return paths

    def _relative(self, number: int, text: str, disk: _Names) -> str:
        if len(text) > MAX_PATH_CHARACTERS:
            raise DataError(
                f"{self.path}, row {number}: a path of {len(text):,} characters",
                hint=f"no file has a path of more than {MAX_PATH_CHARACTERS:,} characters",
            )
        if "://" in text:
            raise DataError(
                f"{self.path}, row {number}: {text!r} is an address, not a file",
                hint="download the images first, and give their paths",
            )
        if "\\" in text and disk.find(text) is None:
            text = text.replace("\\", "/")
        path = PurePosixPath(text)
        if path.is_absolute():
            for base in (self.path.parent.absolute(), self.path.parent.resolve()):
                if path.is_relative_to(base):
                    path = path.relative_to(base)
        if path.is_absolute() or ".." in path.parts or _DRIVE.match(text):
            tails = ["/".join(path.parts[start:]) for start in range(1, len(path.parts))]
            there = next((tail for tail in tails if ".." not in tail and disk.find(tail)), "")
            raise DataError(
                f"{self.path}, row {number}: {text!r} lies outside the table's folder",
                hint="give paths relative to the folder of the table"
                + (f", such as {there}, which is there" if there else ""),
            )
        return str(path)


def read_column_names(path: Path) -> list[str]:
    """Return the names of a table's columns; none if it cannot be read."""
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return list(pa.parquet.read_schema(path).names)
        return [name.strip() for name in _read_header(path)[1]]
    except _UNREADABLE:
        return []


def _read_header(path: Path) -> tuple[str, list[str]]:
    """Return the delimiter of a CSV file, and the names of its columns."""
    with path.open(encoding="utf-8-sig") as file:
        header = file.readline().rstrip("\r\n")
    delimiter = max(_DELIMITERS, key=header.count)
    return delimiter, next(csv.reader([header], delimiter=delimiter), [])


class _Names:
    """Names on disk below ``base``: each folder is listed once, when it is first asked for."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._exact: dict[str, frozenset[str]] = {}
        self._respelt: dict[str, tuple[dict[str, str], dict[str, str]]] = {}

    def find(self, path: str) -> str | None:
        """Return ``path`` as it is spelt on disk, or None.

        Letters may be composed in another way; if no name is the same in this, case may differ.
        """
        folder, _, name = path.rpartition("/")
        if name in self._list(folder):
            return path
        here = ""
        for part in path.split("/"):
            names = self._list(here)
            spelt = part if part in names else self._respell(here, part)
            if not spelt:
                return None
            here = f"{here}/{spelt}" if here else spelt
        return here

    def find_similar(self, path: str) -> str:
        """Return a file of the same name in another folder, or with an ending; "" if none."""
        name = PurePosixPath(path).name
        folders = [str(PurePosixPath(path).parent), "", *sorted(self._list(""))]
        for folder in folders:
            for other in sorted(self._list("" if folder == "." else folder)):
                if other == name or other.rpartition(".")[0] == name:
                    return f"{folder}/{other}" if folder not in ("", ".") else other
        return ""

    def _list(self, folder: str) -> frozenset[str]:
        if folder not in self._exact:
            try:
                self._exact[folder] = frozenset(os.listdir(self.base / folder))
            except (OSError, ValueError):
                self._exact[folder] = frozenset()
        return self._exact[folder]

    def _respell(self, folder: str, name: str) -> str:
        """Return the name on disk that ``name`` is another spelling of; "" if none is."""
        if folder not in self._respelt:
            names = sorted(self._list(folder))
            cases = Counter(map(fold_label, names))
            self._respelt[folder] = (
                {clean_label(name): name for name in names},
                {fold_label(name): name for name in names if cases[fold_label(name)] == 1},
            )
        composed, without_case = self._respelt[folder]
        return composed.get(clean_label(name)) or without_case.get(fold_label(name), "")


def _joined(columns: Sequence[list[str]]) -> list[str]:
    """One text per row: that of the only column, or the texts of all as a JSON list."""
    if len(columns) == 1:
        return columns[0]
    return [json.dumps(row, ensure_ascii=False) for row in zip(*columns, strict=True)]
