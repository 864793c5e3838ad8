"""Files and folders whose names show that they are never images of a data set."""

from __future__ import annotations

import re

_TEXT_ENDINGS = {"txt", "md", "html", "log", "ini", "py", "ipynb", "sh", "url"}
_RECORD_ENDINGS = {"json", "jsonl", "csv", "tsv", "parquet", "xml", "yaml", "yml", "toml"}
_SIDE_ENDINGS = _TEXT_ENDINGS | _RECORD_ENDINGS | {"db", "dvc", "lnk", "xmp", "aae"}
_PROGRAM_FOLDERS = {"__macosx", "__pycache__", "node_modules", "_gsdata_"}
_WINDOWS_FOLDERS = {"$recycle.bin", "recycler", "system volume information"}
_UNIX_FOLDERS = {"lost+found", "lost.dir"}
_NAS_FOLDERS = {"@eadir", "@tmp", "@recycle", "@recently-snapshot", "@__thumb", "@synoresource"}
_NAS_BINS = {"#recycle", "#snapshot"}
_SYSTEM_FOLDERS = _PROGRAM_FOLDERS | _WINDOWS_FOLDERS | _UNIX_FOLDERS | _NAS_FOLDERS | _NAS_BINS
_FOUND = re.compile(r"found\.\d{3}")
"""Files that Windows chkdsk recovers."""
PLACEHOLDER_ENDING = ".icloud"
"""Suffix of the hidden file `.NAME.icloud` that macOS leaves for a photo stored only in iCloud."""


def is_side_file(name: str) -> bool:
    """Return whether a file is hidden, or a text or record that is often next to images."""
    # Plain text: os.path.splitext takes four times as long, and this runs once per image.
    _, dot, ending = name.rpartition(".")
    return name.startswith(".") or (dot == "." and ending.lower() in _SIDE_ENDINGS)


def is_placeholder(name: str) -> bool:
    """Return whether a file only stands for a photo in iCloud."""
    return name.startswith(".") and name.endswith(PLACEHOLDER_ENDING)


def is_side_folder(name: str) -> bool:
    """Return whether a folder is hidden, or belongs to a system, a NAS or a program."""
    folded = name.lower()
    return name.startswith(".") or folded in _SYSTEM_FOLDERS or bool(_FOUND.fullmatch(folded))
