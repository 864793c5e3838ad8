"""Images that people added to a table of images, which itself is not changed.

The files are in the folder `added` next to the table. The name of each holds the start of its
SHA-256, and its label is in corrections.csv.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rootstock.data.entry import Entry, count
from rootstock.data.label_corrections import ORIGINAL, REMOVE, read_corrections_of

FOLDER = "added"
DIGITS = 16
"""How many digits of the SHA-256 are in a file's name."""
_NAME = re.compile(rf"added-([0-9a-f]{{{DIGITS}}})\.\w+")


def name_added(digest: str, ending: str) -> str:
    """Return the file name of an added image with the SHA-256 ``digest``."""
    return f"added-{digest[:DIGITS]}.{ending}"


def list_added(table: Path, entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Return the images that were added to a table, and warnings about files without a label.

    ``entries`` are those of the table: if it gives splits, an added image is in `train`. A file
    that the table itself lists is left to it.
    """
    folder = table.parent / FOLDER
    if not folder.is_dir():
        return [], []
    labels: dict[str, str] = {}
    for row in read_corrections_of(table):
        if row.new not in (ORIGINAL, REMOVE):
            labels.setdefault(row.sha256[:DIGITS], row.new)
    listed = {entry.path for entry in entries}
    split = "train" if any(entry.split for entry in entries) else None
    nothing = dict.fromkeys(entries[0].metadata, "") if entries else {}
    added, without = [], []
    for name in sorted(path.name for path in folder.iterdir()):
        path, match = f"{FOLDER}/{name}", _NAME.fullmatch(name)
        if match is None or path in listed:
            continue
        if label := labels.get(match[1]):
            added.append(Entry(path, label, split, nothing, settled=True))
        else:
            without.append(path)
    if not without:
        return added, []
    return added, [
        f"{count(len(without), 'added image')} without a row in corrections.csv not used: "
        f"{without[0]}"
    ]
