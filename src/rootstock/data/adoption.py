"""Add new images to a data set of class folders, and note where they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from rootstock.data.decode import decode_image
from rootstock.data.label_corrections import (
    Correction,
    append_corrections,
    locate_corrections,
    stamp_time,
)
from rootstock.data.limits import DecodeLimits
from rootstock.data.manifest import ImageRow
from rootstock.errors import DataError
from rootstock.system.files import write_atomic

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
    """Add an image file to the folder of its class; return its path.

    ``rows`` are the existing images: the new file is put next to a training image of the class
    ``label``. A row of corrections.csv records who added it, and why.
    Raises:
        DataError: the data set is a table, already has this image, or has no such class.
        ImageError: the file is not a usable image.
        ArtifactError: the file cannot be written; nothing remains of it.
    """
    if not root.is_dir():
        raise DataError(
            f"{root} is a table, which lists its images",
            hint="put the file next to the others, and add a row to the table",
        )
    digest = hashlib.sha256(content).hexdigest()
    if there := next((row.path for row in rows if row.sha256 == digest), None):
        raise DataError(
            f"the image is already in the data: {there}", hint="correct its label instead"
        )
    alike = [row for row in rows if row.target == label and row.split != "test"]
    if not alike:
        raise DataError(
            f"the data has no class {label!r}", hint="name a class that already has images"
        )
    kind = decode_image(content, limits).format.lower()
    folder = root / PurePosixPath(min(row.path for row in alike)).parent
    path = folder / f"added-{digest[:16]}.{ENDINGS.get(kind, kind)}"
    with write_atomic(path) as temporary:
        temporary.write_bytes(content)
    try:
        note = Correction(digest, "", label, who, stamp_time(), why)
        append_corrections(locate_corrections(root), [note])
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path
