"""The tree of a folder on disk: files that may be images, and skipped entries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rootstock.data.entry import count, shorten
from rootstock.data.ignored import is_placeholder, is_side_file, is_side_folder
from rootstock.errors import DataError

OWN_FOLDER = ".rootstock"
"""A file that Rootstock writes into each folder of results."""


@dataclass
class Folder:
    """Names of candidate images and of subfolders, both sorted.

    ``n_images`` counts the images at all depths. ``folders`` contains only folders with images; the
    others are in ``empty``.
    """

    path: str
    parent: Folder | None = None
    files: list[str] = field(default_factory=list)
    folders: dict[str, Folder] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    n_images: int = 0
    skipped: bool = False
    """Whether the folder was skipped; the warnings give the reason."""

    def paths(self) -> Iterator[str]:
        """Yield the paths of all candidate images, relative to this folder."""
        waiting = [("", self)]
        while waiting:
            prefix, folder = waiting.pop()
            yield from (prefix + name for name in folder.files)
            waiting += [(f"{prefix}{name}/", one) for name, one in folder.folders.items()]


@dataclass
class _Notes:
    """Skipped entries, as paths relative to the root."""

    unreadable: list[str] = field(default_factory=list)
    circles: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    placeholders: list[str] = field(default_factory=list)

    def warnings(self) -> list[str]:
        texts = []
        if self.unreadable:
            texts.append(
                "folders that cannot be read, whose images are therefore missing: "
                f"{shorten(self.unreadable)}"
            )
        if self.circles:
            texts.append(
                f"links to a folder that contains them are ignored: {shorten(self.circles)}"
            )
        if self.own:
            texts.append(f"folders with results of Rootstock are ignored: {shorten(self.own)}")
        if self.placeholders:
            texts.append(
                f"{count(len(self.placeholders), 'image')} stored only in iCloud, not on this "
                f"disk: {shorten(self.placeholders)}; download them in the Finder"
            )
        return texts


def scan_folder(root: Path) -> tuple[Folder, list[str]]:
    """Return the tree below ``root``, and warnings about skipped entries.

    Links to folders are followed, unless the folder contains the link.
    Raises:
        DataError: ``root`` itself cannot be read.
    """
    top, notes = Folder(str(root)), _Notes()
    waiting, seen = [top], [top]
    while waiting:
        folder = waiting.pop()
        subfolders = _read(folder, top, notes)
        folder.folders = {name: Folder(f"{folder.path}/{name}", folder) for name in subfolders}
        waiting += folder.folders.values()
        seen += folder.folders.values()
    for folder in reversed(seen):  # a folder comes after its parent
        folder.empty = [
            name for name, one in folder.folders.items() if not (one.n_images or one.skipped)
        ]
        folder.folders = {name: one for name, one in folder.folders.items() if one.n_images}
        folder.n_images = len(folder.files) + sum(one.n_images for one in folder.folders.values())
    return top, notes.warnings()


def _read(folder: Folder, top: Folder, notes: _Notes) -> list[str]:
    """Fill in the files of ``folder``; return the names of its subfolders."""
    place = os.path.relpath(folder.path, top.path)
    try:
        with os.scandir(folder.path) as listing:
            items = sorted(listing, key=lambda item: item.name)
    except OSError as error:
        if folder is top:
            raise DataError(f"cannot read {top.path}: {error.strerror or error}") from None
        notes.unreadable.append(f"{place} ({error.strerror or error})")
        folder.skipped = True
        return []
    own = any(item.name == OWN_FOLDER for item in items)
    if own and folder is not top:
        notes.own.append(place)
        folder.skipped = True
        return []
    subfolders = []
    for item in items:
        where = item.name if folder is top else f"{place}/{item.name}"
        if _is_folder(item):
            if is_side_folder(item.name):
                continue
            if own and item.name in ("artifacts", "reports", "mlruns"):
                notes.own.append(where)
            elif item.is_symlink() and _leads_up(item.path, folder):
                notes.circles.append(where)
            else:
                subfolders.append(item.name)
        elif not is_side_file(item.name):
            folder.files.append(item.name)
        elif is_placeholder(item.name):
            notes.placeholders.append(where)
    return subfolders


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:
        return False  # treated as a file, which then cannot be opened


def _leads_up(link: str, folder: Folder | None) -> bool:
    """Return whether ``link`` leads to ``folder``, to one of its parents, or above the root."""
    target = os.path.realpath(link)
    while folder:
        here = os.path.realpath(folder.path)
        if here == target or (folder.parent is None and here.startswith(target.rstrip("/") + "/")):
            return True
        folder = folder.parent
    return False
