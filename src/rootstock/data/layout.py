"""List the images of a data set and their targets, from folders or a table.

Three layouts are read:

    root/<class>/**.jpg                      class folders
    root/{train,val,test}/<class>/**.jpg     given splits; a missing one is drawn from train
    labels.csv or labels.parquet             columns path,TARGET[,split]; paths are relative to it

The task names the columns of its target, such as `label`, and whether a folder name is a target.

Images that people added to a table in the studio are in the folder `added` next to it.

Hidden files and side files (text, tables, archives of metadata) are skipped; every other file in
a class folder counts as an image and is judged by its content. docs/guides/data.md lists the
rules for unusual cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path

from rootstock.data.additions import list_added
from rootstock.data.columns import ColumnRoles, read_column_names
from rootstock.data.entry import TABLE_ENDINGS, Entry, shorten
from rootstock.data.folders import FolderReader, Reading
from rootstock.data.split_folders import LAYOUT_HINT
from rootstock.data.table import TableReader
from rootstock.data.target_rules import FolderSource, PlainReader, TargetReader
from rootstock.errors import DataError

_IMAGE_COLUMNS = {"path", "label", "image", "filename", "file_name", "file", "class", "id"}
"""Column names in published tables of labels."""


@dataclass(frozen=True)
class Layout:
    """The images found at ``root``, a folder or a table, sorted by path."""

    root: Path
    entries: list[Entry]
    warnings: list[str]

    @cached_property
    def base(self) -> Path:
        """The folder to which paths are relative."""
        return base_folder(self.root)


def base_folder(root: Path) -> Path:
    """Return the folder to which image paths are relative: the root, or the folder of a table."""
    return root if root.is_dir() else root.parent


def find_images(
    root: Path,
    *,
    target: TargetReader | None = None,
    roles: ColumnRoles | None = None,
    reading: Reading = "auto",
    need_train: bool = True,
) -> Layout:
    """List the images of a data set with their targets.

    ``target`` reads the targets, by default one class per image. ``roles`` describe the columns of
    a table; ``reading`` is the layout of folders as in `data.layout`. ``need_train``: refuse given
    splits that have no training images.
    Raises:
        DataError: there is no data, or the layout is not recognised, or ambiguous.
    """
    if not root.exists():
        raise DataError(
            f"there is no data at {root}",
            hint="set data.root in params.yaml, or pass another folder",
        )
    reader: FolderSource
    target = target or PlainReader()
    columns = target.columns
    if root.is_file():
        reader = TableReader(root, target, roles or ColumnRoles(), need_train)
    elif own := target.open_folder(root, need_train=need_train):
        reader = own
    elif target.in_folders:
        reader = FolderReader(root, reading, need_train)
    else:
        raise DataError(
            f"{root} is a folder, but folders cannot give {', '.join(columns)}",
            hint=f"set data.root to a CSV or Parquet file with path,{','.join(columns)}",
        )
    tables = [] if root.is_file() else _find_tables(root, columns)
    try:
        entries = reader.read()
    except DataError as error:
        raise DataError(" ".join([error.message, *tables]), hint=error.hint) from None
    if not entries:
        raise DataError(f"{root} contains no images", hint=LAYOUT_HINT)
    if root.is_file():
        added, warnings = list_added(root, entries)
        entries, tables = entries + added, tables + warnings
    return Layout(root, sorted(entries, key=attrgetter("path")), reader.warnings + tables)


def _find_tables(root: Path, columns: Sequence[str]) -> list[str]:
    """Return a warning if tables in ``root`` may list its images."""
    try:
        files = sorted(path for path in root.iterdir() if path.suffix.lower() in TABLE_ENDINGS)
    except OSError:
        return []
    needed = {"path", *columns}
    useful = [path for path in files if needed <= set(read_column_names(path))]
    if useful:
        return [
            f"{useful[0].name} next to the folders has the columns {', '.join(sorted(needed))} and "
            f"is not used: pass {useful[0]} as the data to read labels from it"
        ]
    listing = [path.name for path in files if _IMAGE_COLUMNS & set(read_column_names(path))]
    if not listing:
        return []
    return [
        f"{shorten(listing, most=3)} next to the folders is not used: a table of images has the "
        f"columns path,{','.join(columns)}"
    ]
