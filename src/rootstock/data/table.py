"""Read a CSV or Parquet file that lists images and their targets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from rootstock.data.columns import ColumnRoles, Columns
from rootstock.data.entry import Entry, count
from rootstock.data.file_names import FileNames
from rootstock.data.split_names import read_split_name, settle_eval
from rootstock.data.splits import SPLITS
from rootstock.data.target_rules import TargetReader
from rootstock.errors import DataError
from rootstock.system.escape import escape_terminal

MAX_PATH_CHARACTERS = 4096
"""Linux has no longer paths; without a limit, a long path of `..` takes minutes to resolve."""
_DRIVE = re.compile(r"[A-Za-z]:/")


@dataclass
class TableReader:
    """Reads the table at ``path`` and collects ``warnings``.

    ``need_train``: refuse given splits without training images.
    """

    path: Path
    target: TargetReader
    roles: ColumnRoles = field(default_factory=ColumnRoles)
    need_train: bool = True
    warnings: list[str] = field(default_factory=list)

    def read(self) -> list[Entry]:
        """Return the images that the table lists.

        Raises:
            DataError: the file is not a table, or a row or column is wrong.
        """
        columns = Columns.read(self.path, self.roles)
        self._require(columns, ("path",))
        if columns.note:
            self.warnings.append(f"{self.path}: {columns.note}")
        names = self.target.find_columns(columns)
        if not names:
            self._require(columns, ("path", *self.target.columns))
        paths = columns.texts(columns.find("path")[0], clean=False)
        targets = self.target.read_cells(columns, names)
        for number, (path, target) in enumerate(zip(paths, targets, strict=True), start=1):
            if not path or not target:
                raise DataError(
                    f"{self.path}, row {number}: path or label is empty",
                    hint="give each image a path and a label, or remove the row",
                )
        paths = self._find_files(paths)
        splits: list[str | None] = [None] * len(paths)
        if split := columns.find("split"):
            splits = self._read_splits(columns.texts(split[0]))
        path, count = Counter(paths).most_common(1)[0] if paths else ("", 0)
        if count > 1:
            raise DataError(
                f"{self.path} lists {escape_terminal(path)} {count} times",
                hint="keep one row per image",
            )
        metadata, warnings = columns.metadata(names)
        self.warnings += columns.notes + warnings
        if not metadata:
            return list(map(Entry, paths, targets, splits))
        facts = [
            dict(zip(metadata, row, strict=True)) for row in zip(*metadata.values(), strict=True)
        ]
        return list(map(Entry, paths, targets, splits, facts))

    def _require(self, columns: Columns, roles: Sequence[str]) -> None:
        missing = [role for role in sorted(roles) if not columns.find(role)]
        if missing:
            raise DataError(
                f"{self.path} has no column {' and no column '.join(missing)}; "
                f"its columns are {columns.describe_names()}",
                hint=f"the first line must name the columns path,{','.join(self.target.columns)} "
                "and, optionally, split; or set data.columns, such as {path: file}",
            )

    def _read_splits(self, cells: Sequence[str]) -> list[str | None]:
        names = {cell: read_split_name(cell) for cell in set(cells) - {""}}
        for number, cell in enumerate(cells, start=1):
            name = names.get(cell)
            if cell and not (name and name.bare):
                raise DataError(
                    f"{self.path}, row {number}: split {cell!r} is not one of {', '.join(SPLITS)}",
                    hint="correct the cell, or leave it empty",
                )
        splits = settle_eval({cell: name.split for cell, name in names.items() if name})
        if splits and self.need_train and "train" not in splits.values():
            raise DataError(
                f"{self.path} gives splits, but no row has the split train",
                hint="name the training images `train`, or leave the column empty",
            )
        return [splits.get(cell) for cell in cells]

    def _find_files(self, texts: Sequence[str]) -> list[str]:
        """Return paths relative to the table's folder, as spelt on disk."""
        disk = FileNames(self.path.parent)
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
                f"{count(len(respelt), 'path')} spelt differently from the file names "
                "(backslashes, case, or how letters are composed); the files are used: "
                f"{respelt[0]}"
            )
        if missing:
            there = disk.find_similar(missing[0])
            self.warnings.append(
                f"{len(missing)} of {count(len(paths), 'listed file')} not found, the first: "
                f"{self.path.parent / missing[0]}{f'; {there} exists' if there else ''}"
            )
        return paths

    def _relative(self, number: int, text: str, disk: FileNames) -> str:
        if len(text) > MAX_PATH_CHARACTERS:
            raise DataError(
                f"{self.path}, row {number}: a path of {len(text):,} characters",
                hint=f"no file has a path of more than {MAX_PATH_CHARACTERS:,} characters",
            )
        if "://" in text:
            raise DataError(
                f"{self.path}, row {number}: {text!r} is a URL, not a file",
                hint="download the images first, and list their paths",
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
                f"{self.path}, row {number}: {text!r} is outside the table's folder",
                hint="write paths relative to the folder of the table"
                + (f", such as {there}, which exists" if there else ""),
            )
        return str(path)
