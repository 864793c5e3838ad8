"""Annotations in COCO format, as a table with one box per image."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from rootstock.data.entry import count
from rootstock.errors import DataError

COCO_ENDING = ".json"
NOTE = b"note"
"""Key of the schema's metadata for notes to the user about the table."""
_FOLDERS = ("", "images")
"""Folders of the images, relative to the annotations."""


def read_coco(path: Path) -> pa.Table:
    """Return path, label and box in pixels of the images that have boxes.

    If an image has several boxes, the largest is used; the column `boxes` has their number.

    Raises:
        DataError: the file does not contain such annotations.
    """
    try:
        tree = json.loads(path.read_bytes())
        names = {image["id"]: str(image["file_name"]) for image in tree["images"]}
        labels = {one["id"]: str(one["name"]) for one in tree["categories"]}
        boxes = [
            (one["image_id"], labels[one["category_id"]], [float(side) for side in one["bbox"]])
            for one in tree["annotations"]
        ]
        counts = Counter(image for image, _, _ in boxes)
        rows = [
            (names[image], label, *box, counts[image])
            for image, label, box in _largest(boxes).values()
            if len(box) == 4
        ]
    except (KeyError, TypeError, ValueError, RecursionError, OSError) as error:
        why = f"{type(error).__name__}: {error}"
        raise DataError(
            f"{path} does not contain annotations in COCO format ({why})",
            hint="the file must be an object with `images` (id, file_name), `annotations` "
            "(image_id, category_id, bbox) and `categories` (id, name)",
        ) from None
    if not rows:
        raise DataError(f"no image in {path} has a box", hint="give annotations with `bbox`")
    columns = zip(*sorted(rows), strict=True)
    kinds = ("path", "label", "x", "y", "width", "height", "boxes")
    cells = {
        kind: [str(cell) for cell in column] for kind, column in zip(kinds, columns, strict=True)
    }
    folder = _find_folder(path.parent, cells["path"])
    cells["path"] = [folder + name for name in cells["path"]]
    table = pa.table(cells)
    return table.replace_schema_metadata({NOTE: _describe(names, counts)})


def _largest(
    boxes: Sequence[tuple[Any, str, list[float]]],
) -> Mapping[Any, tuple[Any, str, list[float]]]:
    """Return the largest box of each image; the first one of equal size."""
    largest: dict[Any, tuple[Any, str, list[float]]] = {}
    for one in boxes:
        image, _, box = one
        if image not in largest or _area(box) > _area(largest[image][2]):
            largest[image] = one
    return largest


def _area(box: Sequence[float]) -> float:
    return box[2] * box[3]


def _find_folder(base: Path, names: Sequence[str]) -> str:
    """Return the prefix below which most of a sample of files exist."""
    some = names[:20]
    prefixes = [f"{folder}/" if folder else "" for folder in _FOLDERS]
    return max(
        prefixes, key=lambda prefix: sum((base / (prefix + name)).is_file() for name in some)
    )


def _describe(names: Mapping[Any, str], counts: Mapping[Any, int]) -> str:
    several = sum(number > 1 for number in counts.values())
    notes = []
    if several:
        notes.append(f"{count(several, 'image')} with several boxes: the largest is used")
    if without := len(names) - len(counts):
        notes.append(f"{count(without, 'image')} without a box ignored")
    return "; ".join(notes)
