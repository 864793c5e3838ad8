"""Add new images to a data set, and note where they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from rootstock.data.additions import FOLDER, name_added
from rootstock.data.decode import decode_image
from rootstock.data.entry import clean_label
from rootstock.data.ignored import is_side_folder
from rootstock.data.label_corrections import (
    Correction,
    append_corrections,
    locate_corrections,
    stamp_time,
)
from rootstock.data.limits import DecodeLimits
from rootstock.data.manifest import ImageRow
from rootstock.data.split_names import read_split_name
from rootstock.errors import DataError
from rootstock.system.files import remove_leftovers, write_atomic

ENDINGS = {"jpeg": "jpg", "mpo": "jpg", "tiff": "tif"}
"""Suffixes of formats that are not named like their suffix."""


def adopt_image(
    root: Path,
    rows: Sequence[ImageRow],
    content: bytes,
    label: str,
    *,
    who: str,
    why: str,
    limits: DecodeLimits | None = None,
) -> Path:
    """Copy an image into the data set ``root`` with its ``label``; return the path of the copy.

    ``rows`` are the existing images, and ``label`` is a text as the manifest writes it.
    In class folders the copy goes next to a training image of its class; for a table, to the folder
    `added` next to it. A row of corrections.csv records who added it, and why.
    Raises:
        DataError: the data set already has this image, or no folder can have the class.
        ImageError: the file is not a usable image.
        ArtifactError: the file cannot be written; nothing remains of it.
    """
    digest = hashlib.sha256(content).hexdigest()
    if there := next((row.path for row in rows if row.sha256 == digest), None):
        raise DataError(
            f"the image is already in the data: {there}", hint="correct its label instead"
        )
    kind = decode_image(content, limits).format.lower()
    folder = _class_folder(root, rows, label) if root.is_dir() else root.parent / FOLDER
    path = folder / name_added(digest, ENDINGS.get(kind, kind))
    is_new = not path.exists()
    remove_leftovers(path)
    with write_atomic(path) as temporary:
        temporary.write_bytes(content)
    try:
        note = Correction(digest, "", label, who, stamp_time(), why)
        append_corrections(locate_corrections(root), [note])
    except BaseException:
        if is_new:
            path.unlink(missing_ok=True)
        raise
    return path


def _class_folder(root: Path, rows: Sequence[ImageRow], label: str) -> Path:
    """Return the folder of the training images of a class, or where that of a new class belongs."""
    training = [row for row in rows if row.split != "test" and not row.quarantine]
    if alike := [row.path for row in training if row.target == label]:
        return root / PurePosixPath(min(alike)).parent
    for row in training:
        parts = PurePosixPath(row.path).parts
        at = next((i for i, part in enumerate(parts) if clean_label(part) == row.target), None)
        if at is not None:
            break
    else:
        raise DataError(
            f"the data has no class {label!r}, and no folder that is called like a class",
            hint="name a class that has images already",
        )
    if "/" in label or not label or is_side_folder(label) or read_split_name(label):
        raise DataError(
            f"a folder cannot be called {label!r}", hint="name a class that has images already"
        )
    return root.joinpath(*parts[:at], label)
