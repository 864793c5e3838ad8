"""Which images there are, and what their targets are: folders or a table.

Three layouts are read:

    root/<class>/**.jpg                      class folders
    root/{train,val,test}/<class>/**.jpg     given splits; what is missing is split off from train
    labels.csv or labels.parquet             columns path,TARGET[,split]; paths are relative to it

The task names the columns of its target, such as `label`, and says whether a folder is a target.

Hidden files and side files (text, tables, archives of metadata) are passed over; every other file
in a class folder counts as an image and is judged by its content.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from rootstock.data.splits import SPLITS
from rootstock.errors import DataError

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_TEXT_ENDINGS = {"txt", "md", "html", "log", "ini", "py", "ipynb", "sh"}
_RECORD_ENDINGS = {"json", "jsonl", "csv", "tsv", "parquet", "xml", "yaml", "yml", "toml"}
_SIDE_ENDINGS = _TEXT_ENDINGS | _RECORD_ENDINGS | {"db", "dvc", "lnk"}
_SIDE_FOLDERS = frozenset({"__MACOSX", "__pycache__"})
_TABLE_ENDINGS = (".csv", ".parquet", ".pq")
_LAYOUT_HINT = "expected root/<class>/*.jpg, root/train/<class>/*.jpg, or a CSV with path,label"


class Entry(NamedTuple):
    """One candidate image: path relative to the base folder, target, given split or None."""

    path: str
    target: str
    split: str | None = None


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
    root: Path, *, columns: Sequence[str] = ("label",), in_folders: bool = True
) -> Layout:
    """List the images of a data set with their targets.

    ``columns`` hold the target in a table, several of them joined as a JSON list; ``in_folders``:
    the name of a class folder is a target too.
    Raises:
        DataError: there is nothing there, or no layout can be recognised.
    """
    if not root.exists():
        raise DataError(
            f"there is no data at {root}",
            hint="set data.root in params.yaml, or give another folder",
        )
    if root.is_file():
        layout = _from_table(root, columns)
    elif in_folders:
        layout = _from_folders(root)
    else:
        raise DataError(
            f"{root} is a folder, and folders say nothing of {', '.join(columns)}",
            hint=f"set data.root to a CSV or Parquet file with path,{','.join(columns)}",
        )
    if not layout.entries:
        raise DataError(f"{root} holds no images", hint=_LAYOUT_HINT)
    layout.entries.sort(key=attrgetter("path"))
    return layout


def _from_folders(root: Path) -> Layout:
    folders = _subfolders(root)
    loose = _files(root)
    splits = {name: _SPLIT_NAMES[name.lower()] for name in folders if name.lower() in _SPLIT_NAMES}
    has_splits = any(
        split == "train" and _subfolders(root / name) for name, split in splits.items()
    )
    if not folders:
        what = f"{len(loose)} files but no class folders" if loose else "no images"
        raise DataError(f"{root} holds {what}", hint=_LAYOUT_HINT)
    warnings = []
    if loose:
        warnings.append(f"{len(loose)} files lie beside the class folders and are ignored")
    if not has_splits:
        if "train" not in splits.values() and len(splits) == len(folders):
            raise DataError(
                f"{root} has {', '.join(sorted(splits))} but no train folder", hint=_LAYOUT_HINT
            )
        entries = list(_class_folders(root, "", None, warnings))
        return Layout(root, entries, warnings)
    others = sorted(set(folders) - set(splits))
    if others:
        warnings.append(f"folders beside train/val/test are ignored: {', '.join(others)}")
    entries = [
        entry
        for name, split in splits.items()
        for entry in _class_folders(root, f"{name}/", split, warnings)
    ]
    return Layout(root, entries, warnings)


def _class_folders(
    root: Path, prefix: str, split: str | None, warnings: list[str]
) -> Iterator[Entry]:
    for label in _subfolders(root / prefix):
        paths = list(_walk(root / prefix / label))
        yield from (Entry(f"{prefix}{label}/{path}", label, split) for path in paths)
        if not paths:
            warnings.append(f"the class folder {prefix}{label} is empty and is ignored")


def _walk(folder: Path) -> Iterator[str]:
    """Paths of candidate images at any depth below ``folder``, relative to it."""
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_side_folder(name))
        relative = Path(here).relative_to(folder).as_posix()
        for name in sorted(files):
            if not _is_side_file(name):
                yield name if relative == "." else f"{relative}/{name}"


def _subfolders(folder: Path) -> list[str]:
    return sorted(
        item.name for item in folder.iterdir() if item.is_dir() and not _is_side_folder(item.name)
    )


def _files(folder: Path) -> list[str]:
    return [i.name for i in folder.iterdir() if i.is_file() and not _is_side_file(i.name)]


def _is_side_file(name: str) -> bool:
    # Text: os.path.splitext takes four times as long, and it is done for each image.
    _, dot, ending = name.rpartition(".")
    return name.startswith(".") or (dot == "." and ending.lower() in _SIDE_ENDINGS)


def _is_side_folder(name: str) -> bool:
    return name.startswith(".") or name in _SIDE_FOLDERS


def _from_table(path: Path, target_columns: Sequence[str]) -> Layout:
    table = _read_table(path)
    needed = {"path", *target_columns}
    for name in sorted(needed | {"split"}):
        if table.column_names.count(name) > 1:
            raise DataError(f"{path} has more than one column {name}")
    missing = needed - set(table.column_names)
    if missing:
        raise DataError(
            f"{path} has no column {' and no column '.join(sorted(missing))}; "
            f"it has {', '.join(table.column_names)}",
            hint=f"a table needs the columns path,{','.join(target_columns)} and may have split",
        )
    paths = _texts(path, table, "path")
    targets = _joined([_texts(path, table, name) for name in target_columns])
    splits = [""] * table.num_rows
    if "split" in table.column_names:
        splits = _texts(path, table, "split")
    entries = [
        _table_entry(path, number, *row)
        for number, row in enumerate(zip(paths, targets, splits, strict=True), start=1)
    ]
    listed, count = (
        Counter(entry.path for entry in entries).most_common(1)[0] if entries else ("", 0)
    )
    if count > 1:
        raise DataError(f"{path} lists {listed} {count} times", hint="keep one row an image")
    if any(entry.split for entry in entries) and not any(e.split == "train" for e in entries):
        raise DataError(f"{path} gives splits but no row of the split train")
    return Layout(path, entries, [])


def _read_table(path: Path) -> pa.Table:
    if path.suffix.lower() not in _TABLE_ENDINGS:
        raise DataError(f"{path} is a file, but not a CSV or Parquet table", hint=_LAYOUT_HINT)
    try:
        if path.suffix.lower() == ".csv":
            # Everything is text: labels such as 007 must not become the number 7.
            names = path.read_text(encoding="utf-8-sig").partition("\n")[0].strip().split(",")
            types = {name.strip().strip('"'): pa.string() for name in names}
            options = pa.csv.ConvertOptions(column_types=types)
            return pa.csv.read_csv(path, convert_options=options)
        return pa.parquet.read_table(path)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None


def _joined(columns: Sequence[list[str]]) -> list[str]:
    """One text per row: that of the only column, or the texts of all as a JSON list."""
    if len(columns) == 1:
        return columns[0]
    return [json.dumps(row, ensure_ascii=False) for row in zip(*columns, strict=True)]


def _texts(path: Path, table: pa.Table, name: str) -> list[str]:
    try:
        texts = pc.cast(table[name], pa.string())
    except pa.ArrowException:
        raise DataError(
            f"the column {name} of {path} holds {table[name].type}, not one text or number a row"
        ) from None
    return [value or "" for value in texts.to_pylist()]


def _table_entry(table: Path, number: int, path: str, target: str, split: str) -> Entry:
    name = PurePosixPath(path.strip())
    if not path.strip() or not target.strip():
        raise DataError(f"{table}, row {number}: path or label is empty")
    if name.is_absolute() or ".." in name.parts:
        raise DataError(
            f"{table}, row {number}: {path!r} lies outside the table's folder",
            hint="give paths relative to the folder of the table",
        )
    if split and split.lower() not in _SPLIT_NAMES:
        raise DataError(f"{table}, row {number}: split {split!r} is not one of {', '.join(SPLITS)}")
    return Entry(str(name), target.strip(), _SPLIT_NAMES.get(split.lower()))
