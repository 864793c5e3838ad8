"""Manifest: the table of images, one row per image."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from rootstock.data.groups import list_groups
from rootstock.data.inspection_cache import FILE_COLUMNS
from rootstock.data.limits import DecodeLimits
from rootstock.data.rendering import PLAIN, Rendering
from rootstock.data.splits import SPLITS
from rootstock.errors import ArtifactError
from rootstock.system.files import explain_format
from rootstock.system.tables import DAMAGE, read_table, write_rows

FORMAT_VERSION = 2
FIRST_TASK = "single_label"
"""The task of manifests of format 1."""
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        *FILE_COLUMNS,
        ("target", pa.string()),
        ("stratum", pa.string()),
        ("split", pa.string()),
        ("group", pa.int64()),
        ("quarantine", pa.string()),
        ("picture", pa.int64()),
    ]
)
METADATA = pa.field("metadata", pa.string())
"""An additional column, present if a table has more about the images."""
REMOVED = "removed"
"""The quarantine reason of an image that a correction removed; it keeps its split."""


class ImageRow(NamedTuple):
    """One image.

    ``target`` is the true answer, as text that the task reads. Images of one ``stratum`` are spread
    evenly over splits and samples. Images of one ``group`` are in one split, unless splits were
    given; images of one ``picture`` are copies. ``quarantine`` is the reason for not using an
    image, empty for a usable one. ``metadata`` holds further cells of a table, as JSON.
    """

    path: str
    sha256: str
    bytes: int
    width: int
    height: int
    mode: str
    format: str
    target: str
    stratum: str
    split: str
    group: int
    quarantine: str
    picture: int = 0
    metadata: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """The metadata: texts by column name."""
        return dict(json.loads(self.metadata)) if self.metadata else {}


@dataclass(frozen=True)
class Manifest:
    """All rows sorted by path, and the warnings from listing them.

    ``task`` is the name of the task whose targets the rows hold, ``recognised`` the reason for it,
    empty if the settings name it. ``rendering`` is how the images are shown, ``limits`` which files
    were accepted. ``drawn_by`` are the settings with which the splits were drawn, as JSON; empty in
    manifests of older versions. ``originals`` are the targets of corrected and removed images
    before the correction, by path.
    """

    images: tuple[ImageRow, ...]
    warnings: tuple[str, ...] = ()
    given_splits: tuple[str, ...] = ()
    task: str = FIRST_TASK
    rendering: Rendering = PLAIN
    limits: DecodeLimits = DecodeLimits()
    drawn_by: str = ""
    recognised: str = ""
    originals: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def strata(self) -> list[str]:
        """The strata of usable images, sorted."""
        return sorted({row.stratum for row in self.images if not row.quarantine})

    @property
    def quarantined(self) -> list[ImageRow]:
        """The rows that are not used."""
        return [row for row in self.images if row.quarantine]

    def rows(self, split: str | None = None) -> list[ImageRow]:
        """Return the usable rows of one split, or of all."""
        return [r for r in self.images if not r.quarantine and split in (None, r.split)]

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the images, their task, targets and splits; 64 hexadecimal digits."""
        digest = hashlib.sha256()
        if self.task != FIRST_TASK:  # manifests of format 1 have no task, and keep their hash
            digest.update(self.task.encode())
        if self.rendering != PLAIN:
            digest.update(json.dumps(self.rendering.to_dict()).encode())
        for row in self.images:
            fields = (row.path, row.sha256, row.target, row.split, row.quarantine)
            digest.update(json.dumps(fields).encode())
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        """Write as Parquet; the same manifest gives the same bytes."""
        header = {
            "format_version": FORMAT_VERSION,
            "task": self.task,
            "warnings": self.warnings,
            "given_splits": self.given_splits,
            "limits": self.limits.to_dict(),
            "drawn_by": self.drawn_by,
        }
        if self.rendering != PLAIN:
            header["rendering"] = self.rendering.to_dict()
        if self.recognised:
            header["recognised"] = self.recognised
        if self.originals:
            header["originals"] = dict(self.originals)
        schema = SCHEMA.append(METADATA) if any(row.metadata for row in self.images) else SCHEMA
        rows = [row[: len(schema)] for row in self.images]
        write_rows(rows, schema.with_metadata({"rootstock": json.dumps(header)}), path)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest that `write` wrote.

        Raises:
            ArtifactError: the file is missing, damaged or of another format version.
        """
        hint = "run the stage `index` again"
        try:
            table = read_table(path)
            header = json.loads((table.schema.metadata or {})[b"rootstock"])
            table, header = _upgrade(table, header)
            problem = explain_format(
                header["format_version"], FORMAT_VERSION, path=path, again=hint
            )
            rows = () if problem else tuple(ImageRow(**row) for row in table.to_pylist())
            manifest = cls(
                rows,
                tuple(header["warnings"]),
                tuple(header["given_splits"]),
                "" if problem else header["task"],
                Rendering.from_dict(header.get("rendering", {})),
                DecodeLimits.from_dict(header.get("limits", {})),
                header.get("drawn_by", ""),
                header.get("recognised", ""),
                header.get("originals", {}),
            )
        except FileNotFoundError:
            raise ArtifactError(f"{path} is missing", hint=hint) from None
        except DAMAGE as error:
            raise ArtifactError(f"{path} is not a manifest: {error}", hint=hint) from None
        if problem:
            raise ArtifactError(problem[0], hint=problem[1])
        return manifest

    def copies(self) -> list[list[ImageRow]]:
        """Return groups of two or more usable rows that show the same picture, or nearly."""
        return list_groups(self.rows(), attrgetter("picture"))

    def summary(self) -> dict[str, Any]:
        """Return counts, quarantine, duplicates, conflicts and leaks, for JSON."""
        usable = self.rows()
        counts = Counter((row.stratum, row.split) for row in usable)
        groups = self.copies()
        reasons = Counter(r.quarantine for r in self.quarantined)
        return {
            "task": self.task,
            "recognised": self.recognised,
            "n_images": len(self.images),
            "n_usable": len(usable),
            "classes": {
                stratum: {split: counts[stratum, split] for split in SPLITS}
                for stratum in self.strata
            },
            "corrected": len(self.originals) - reasons[REMOVED],
            "removed": reasons[REMOVED],
            "quarantined": [{"path": r.path, "reason": r.quarantine} for r in self.quarantined],
            "quarantine_reasons": dict(reasons),
            "duplicate_groups": [[r.path for r in g] for g in groups],
            "label_conflicts": [
                [r.path for r in g] for g in groups if len({r.target for r in g}) > 1
            ],
            "leaks_across_given_splits": [
                [r.path for r in g]
                for g in list_groups(usable, attrgetter("picture", "group"))
                if len({r.split for r in g}) > 1
            ],
            "warnings": list(self.warnings),
        }


def _upgrade(table: pa.Table, header: dict[str, Any]) -> tuple[pa.Table, dict[str, Any]]:
    """Convert a manifest of an earlier format to the present one.

    A manifest without pictures uses groups as copies; format 1 has one class per image.
    """
    if "picture" not in table.column_names:
        table = table.append_column("picture", table["group"])
    if header["format_version"] != 1:
        return table, header
    columns = ["target" if name == "label" else name for name in table.column_names]
    table = table.rename_columns(columns).append_column("stratum", table["label"])
    return table, {**header, "format_version": FORMAT_VERSION, "task": FIRST_TASK}
