"""Which images there are, and what their targets are: folders or a table.

Three layouts are read:

    root/<class>/**.jpg                      class folders
    root/{train,val,test}/<class>/**.jpg     given splits; what is missing is split off from train
    labels.csv or labels.parquet             columns path,TARGET[,split]; paths are relative to it

The task names the columns of its target, such as `label`, and says whether a folder is a target.

Hidden files and side files (text, tables, archives of metadata) are passed over; every other file
in a class folder counts as an image and is judged by its content. docs/guides/data.md says what is
decided about each oddity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path

from rootstock.data.columns import ColumnRoles, read_column_names
from rootstock.data.entry import TABLE_ENDINGS, Entry, shorten
from rootstock.data.folders import FolderReader, Reading
from rootstock.data.split_folders import LAYOUT_HINT
from rootstock.data.table import TableReader
from rootstock.data.target_rules import FolderSource, PlainReader, TargetReader
from rootstock.errors import DataError

_IMAGE_COLUMNS = {"path", "label", "image", "filename", "file_name", "file", "class", "id"}
"""Names of columns in tables of labels that others publish."""


@dataclass(frozen=True)
class Layout:
    """What was found at ``root``, a folder or a table, in order of path."""

    root: Path
    entries: list[Entry]
    warnings: list[str]

    @cached_property
    def base(self) -> Path:
        """The folder that paths are relative to."""
        return base_folder(self.root)


def base_folder(root: Path) -> Path:
    """The folder that image paths are relative to: the root, or the folder of a table."""
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

    ``target`` reads the targets, a class per image by default; ``roles`` say what the columns of a
    table are for; ``reading`` of folders is as in `data.layout`; ``need_train``: given splits
    without one of training are refused.
    Raises:
        DataError: there is nothing there, or no layout can be recognised, or more than one.
    """
    if not root.exists():
        raise DataError(
            f"there is no data at {root}",
            hint="set data.root in params.yaml, or give another folder",
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
            f"{root} is a folder, and folders say nothing of {', '.join(columns)}",
            hint=f"set data.root to a CSV or Parquet file with path,{','.join(columns)}",
        )
    tables = [] if root.is_file() else _find_tables(root, columns)
    try:
        entries = reader.read()
    except DataError as error:
        raise DataError(" ".join([error.message, *tables]), hint=error.hint) from None
    if not entries:
        raise DataError(f"{root} holds no images", hint=LAYOUT_HINT)
    return Layout(root, sorted(entries, key=attrgetter("path")), reader.warnings + tables)


def _find_tables(root: Path, columns: Sequence[str]) -> list[str]:
    """Return a warning if there are tables in ``root`` that may list its images."""
    try:
        files = sorted(path for path in root.iterdir() if path.suffix.lower() in TABLE_ENDINGS)
    except OSError:
        return []
    needed = {"path", *columns}
    useful = [path for path in files if needed <= set(read_column_names(path))]
    if useful:
        return [
            f"{useful[0].name} next to the folders has the columns {', '.join(sorted(needed))} and "
            f"is not used: give {useful[0]} as the data to take labels from it"
        ]
    listing = [path.name for path in files if _IMAGE_COLUMNS & set(read_column_names(path))]
    if not listing:
        return []
    return [
        f"{shorten(listing, most=3)} next to the folders is not used: a table of images has the "
        f"columns path,{','.join(columns)}"
    ]
