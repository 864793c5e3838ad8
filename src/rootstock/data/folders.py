"""Recognise class folders and split folders by the names and depth of folders.

An unambiguous layout is read, with a warning if it is unusual. An ambiguous one is an error that
names both readings; `data.layout` chooses one.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rootstock.data.entry import Entry, clean_label, count, fold_label, shorten
from rootstock.data.split_folders import LAYOUT_HINT, find_splits, read_inner_splits, read_splits
from rootstock.data.split_names import read_split_name
from rootstock.data.tree import Folder, scan_folder
from rootstock.errors import DataError

Reading = Literal["auto", "classes", "splits"]
_WORD = re.compile(r"[^\W\d_]+")
_MIN_FILES_PER_WORD = 5


@dataclass
class FolderReader:
    """Reads the tree below ``root`` and collects ``warnings``.

    ``need_train``: refuse a data set without training images.
    """

    root: Path
    reading: Reading = "auto"
    need_train: bool = True
    warnings: list[str] = field(default_factory=list)

    def read(self) -> list[Entry]:
        """Return the candidate images.

        Raises:
            DataError: no layout matches, or more than one.
        """
        top, self.warnings = scan_folder(self.root)
        if not top.folders:
            what = "no images"
            if top.files:
                what = f"{count(len(top.files), 'file')} but no class folders"
                what += _describe_beginnings(top.files)
            raise DataError(f"{self.root} contains {what}", hint=LAYOUT_HINT)
        prefix, folder = self._descend(top) if self.reading == "auto" else ("", top)
        for place, one in {"": top, prefix: folder}.items():
            self._warn_of_loose(one, place)
        splits = {}
        if self.reading != "classes":
            splits = find_splits(
                folder,
                self.root / prefix,
                certain=self.reading == "splits",
                need_train=self.need_train,
            )
        if splits:
            entries = list(read_splits(folder, prefix, splits, self.warnings))
        else:
            entries = list(self._read_classes(folder, prefix))
        self._warn_of_twins(entries)
        return entries

    def _descend(self, top: Folder) -> tuple[str, Folder]:
        """Return the folder of the classes or splits, and its path: an archive may add a level."""
        prefix, folder, passed = "", top, ""
        while len(folder.folders) == 1:
            ((name, only),) = folder.folders.items()
            if only.files or read_split_name(name):
                break
            prefix, folder = f"{prefix}{name}/", only
            if len(folder.folders) > 1 or any(map(read_split_name, folder.folders)):
                passed = prefix
        if not passed:
            return "", top
        self.warnings.append(
            f"{top.path} contains one folder; the classes are read from {prefix} inside it"
        )
        return prefix, folder

    def _warn_of_loose(self, folder: Folder, prefix: str) -> None:
        names: dict[str, list[str]] = {"file": [], "broken link": []}
        for name in folder.files:
            noun = "file" if Path(folder.path, name).exists() else "broken link"
            names[noun].append(name)
        where = f" in {prefix}" if prefix else ""
        self.warnings += [
            f"ignored {count(len(some), noun)} next to the class folders{where}: "
            f"{shorten(some, most=3)}"
            for noun, some in names.items()
            if some
        ]

    def _read_classes(self, folder: Folder, prefix: str) -> Iterator[Entry]:
        self._warn_of_empty(folder, prefix)
        classes = folder.folders
        if self.reading == "auto":
            inner = read_inner_splits(classes)
            if inner:
                self.warnings.append(
                    "each class folder contains splits, which are used: "
                    f"{', '.join(sorted(set(inner)))}"
                )
                for label, images in classes.items():
                    for name, split_folder in images.folders.items():
                        for path in split_folder.paths():
                            yield Entry(f"{prefix}{label}/{name}/{path}", label, inner[name])
                return
            self._check_depth(folder, prefix)
            named = [name for name in classes if read_split_name(name)]
            if named:
                self.warnings.append(
                    f"folders named like splits are read as classes: {shorten(named)}"
                )
        for label, images in classes.items():
            yield from (Entry(f"{prefix}{label}/{path}", label) for path in images.paths())

    def _check_depth(self, folder: Folder, prefix: str) -> None:
        """Refuse class folders that seem to contain classes; warn about other folders in them."""
        classes = folder.folders
        labels = {fold_label(label): label for label in classes}
        flat = [label for label, images in classes.items() if images.files]
        nested = {label: one for label, one in classes.items() if len(one.folders) > 1}
        inside = [frozenset(map(fold_label, one.folders)) for one in classes.values()]
        if len(nested) == len(classes) > 1 and not flat and len(set(inside)) == 1:
            inner = list(next(iter(classes.values())).folders)
            raise DataError(
                f"{self.root / prefix} is ambiguous: the classes may be "
                f"{shorten(list(classes), most=3)}, or {shorten(inner, most=3)}, which are in "
                "each of them",
                hint="for the inner folders, put all images of a class into one folder, or list "
                "them in a table; for the outer folders, set data.layout to `classes`",
            )
        for label, images in classes.items():
            if any(labels.get(fold_label(name), label) != label for name in images.folders):
                raise self._two_depths(
                    f"{prefix}{label}/", images, "one of them has the name of a class"
                )
            if flat and not images.files and label in nested:
                why = f"the images of {shorten(flat, most=3)} are not in inner folders"
                raise self._two_depths(f"{prefix}{label}/", images, why)
        if nested:
            examples = [
                f"{label} ({shorten(list(one.folders), most=3)})" for label, one in nested.items()
            ]
            self.warnings.append(
                "images in folders below a class folder belong to that class: "
                f"{shorten(examples, most=3)}"
            )

    def _two_depths(self, place: str, images: Folder, why: str) -> DataError:
        return DataError(
            f"{self.root / place} is ambiguous: it may be one class, or a folder of the classes "
            f"{shorten(list(images.folders), most=3)}, since {why}",
            hint="for several classes, move its folders one level up, or pass it as the data; for "
            "one class, set data.layout to `classes`",
        )

    def _warn_of_empty(self, folder: Folder, prefix: str) -> None:
        self.warnings += [
            f"the class folder {prefix}{name} is empty and is ignored" for name in folder.empty
        ]

    def _warn_of_twins(self, entries: list[Entry]) -> None:
        """Normalise the labels, and warn about folders that become the same class.

        Raises:
            DataError: the name of a folder is blank.
        """
        spellings: dict[str, set[str]] = defaultdict(set)
        for spelling in {entry.target for entry in entries}:
            spellings[clean_label(spelling)].add(spelling)
        if "" in spellings:
            raise DataError(f"{self.root} has a class folder whose name is blank")
        for label, names in sorted(spellings.items()):
            if len(names) > 1:
                self.warnings.append(
                    f"{len(names)} class folders are read as the class {label}: their names "
                    "differ only in surrounding blanks or in how letters are composed"
                )
        entries[:] = [entry._replace(target=clean_label(entry.target)) for entry in entries]


def _describe_beginnings(names: Sequence[str]) -> str:
    """Return a remark about files whose names begin with the same words, such as `cat.0.jpg`."""
    words = Counter(found[0] if (found := _WORD.match(name)) else "" for name in names)
    if words[""] or not 2 <= len(words) <= len(names) / _MIN_FILES_PER_WORD:
        return ""
    return (
        f"; their names begin with {shorten(sorted(words), most=3)}: if these words are the "
        "classes, put the files of each into its own folder"
    )
