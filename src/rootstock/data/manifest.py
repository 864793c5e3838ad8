"""Manifest: the table of images, one row each, made by decoding every image once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import starmap
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from rootstock.data.blank import decide_rendering
from rootstock.data.entry import describe_faults, explaining
from rootstock.data.groups import Duplicates, group_images, list_groups, read_groups
from rootstock.data.inspect import Inspected
from rootstock.data.inspection_cache import FILE_COLUMNS, inspect_layout
from rootstock.data.layout import Layout
from rootstock.data.limits import DecodeLimits
from rootstock.data.rendering import PLAIN, Rendering
from rootstock.data.splits import SPLITS, assign_splits, recall_splits
from rootstock.data.target_rules import TargetRules
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


class ImageRow(NamedTuple):
    """One image.

    ``target`` is what it should get, as text that the task reads; images of one ``stratum`` are
    spread evenly over splits and samples. Images of one ``group`` are in one split, unless splits
    were given; images of one ``picture`` are copies. ``quarantine`` is the reason why an image is
    not used, empty where it is.
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


@dataclass(frozen=True)
class Manifest:
    """All rows in order of path, and what was noticed while listing them.

    ``task`` is the name of the task whose targets the rows hold; ``rendering`` is how the images
    are shown, and ``limits`` is what was accepted as one. ``drawn_by`` are the settings that the
    splits were drawn by, as JSON; empty in manifests of versions that did not note them.
    """

    images: tuple[ImageRow, ...]
    warnings: tuple[str, ...] = ()
    given_splits: tuple[str, ...] = ()
    task: str = FIRST_TASK
    rendering: Rendering = PLAIN
    limits: DecodeLimits = DecodeLimits()
    drawn_by: str = ""

    @cached_property
    def strata(self) -> list[str]:
        """Strata of usable images, sorted."""
        return sorted({row.stratum for row in self.images if not row.quarantine})

    @property
    def quarantined(self) -> list[ImageRow]:
        """Rows that are not used."""
        return [row for row in self.images if row.quarantine]

    def rows(self, split: str | None = None) -> list[ImageRow]:
        """Usable rows of one split, or of all."""
        return [r for r in self.images if not r.quarantine and split in (None, r.split)]

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of which images there are, their task, targets and splits; 64 hex digits."""
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
        write_rows(self.images, SCHEMA.with_metadata({"rootstock": json.dumps(header)}), path)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read what `write` wrote.

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
            )
        except FileNotFoundError:
            raise ArtifactError(f"{path} is missing", hint=hint) from None
        except DAMAGE as error:
            raise ArtifactError(f"{path} is not a manifest: {error}", hint=hint) from None
        if problem:
            raise ArtifactError(problem[0], hint=problem[1])
        return manifest

    def copies(self) -> list[list[ImageRow]]:
        """Groups of two or more usable rows that hold the same picture, or nearly."""
        return list_groups(self.rows(), attrgetter("picture"))

    def summary(self) -> dict[str, Any]:
        """Counts, quarantine, duplicates, conflicts and leaks, as JSON holds them."""
        usable = self.rows()
        counts = Counter((row.stratum, row.split) for row in usable)
        groups = self.copies()
        return {
            "n_images": len(self.images),
            "n_usable": len(usable),
            "classes": {
                stratum: {split: counts[stratum, split] for split in SPLITS}
                for stratum in self.strata
            },
            "quarantined": [{"path": r.path, "reason": r.quarantine} for r in self.quarantined],
            "quarantine_reasons": dict(Counter(r.quarantine for r in self.quarantined)),
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
    """Return a manifest of an earlier format in the present one.

    One without pictures has the copies as groups; one of format 1 has one class per image.
    """
    if "picture" not in table.column_names:
        table = table.append_column("picture", table["group"])
    if header["format_version"] != 1:
        return table, header
    columns = ["target" if name == "label" else name for name in table.column_names]
    table = table.rename_columns(columns).append_column("stratum", table["label"])
    return table, {**header, "format_version": FORMAT_VERSION, "task": FIRST_TASK}


def build_manifest(
    layout: Layout,
    *,
    rules: TargetRules,
    limits: DecodeLimits,
    val_fraction: float,
    test_fraction: float,
    near_duplicate_bits: int,
    duplicates: Duplicates = "near",
    group: str | None = None,
    min_per_class: int,
    seed: int,
    workers: int | None = None,
    cache_file: Path | None = None,
    on_inspected: Callable[[list[Inspected]], None] | None = None,
    previous: Manifest | None = None,
) -> Manifest:
    """Decode every image of ``layout`` once and decide its split.

    ``workers`` is the number of decoding processes; None: one a core. ``cache_file`` is a file that
    keeps what was seen, so that the next run reads what is new or has changed, nothing else.
    ``duplicates`` says which copies stay in one split, ``group`` which other images do, as in
    `read_groups`. ``on_inspected`` is called with what was seen, before anything is made of it.
    Images of ``previous`` keep their split if it was drawn by the same settings.
    Raises:
        DataError: there is nothing to learn from these targets; ``min_per_class`` is how many
            usable images each stratum needs.
    """
    listed = [entry.target for entry in layout.entries]
    rules.check_texts(layout.root, listed)
    names = read_groups(group, [entry.path for entry in layout.entries])
    inspected = inspect_layout(
        layout, limits=limits, workers=workers, cache_file=cache_file, on_inspected=on_inspected
    )
    usable = [i for i, image in enumerate(inspected) if not image.reason]
    targets = [listed[i] for i in usable]
    warnings = [*layout.warnings, *rules.warn(listed)]
    reasons = [image.reason for image in inspected]
    with explaining(*describe_faults(layout.entries, reasons), *warnings):
        rules.check(layout.root, targets, listed, min_per_class)
    strata = rules.strata(targets)
    together = group_images(
        layout.base,
        [layout.entries[i].path for i in usable],
        [inspected[i] for i in usable],
        strata,
        [names[i] for i in usable],
        duplicates=duplicates,
        bits=near_duplicate_bits,
        limits=limits,
    )
    given_splits = tuple(sorted({entry.split for entry in layout.entries if entry.split}))
    drawn_by = json.dumps(
        [seed, val_fraction, test_fraction, duplicates, near_duplicate_bits, group]
    )
    old_splits = recall_splits(
        previous,
        [(_storable(layout.entries[i].path), inspected[i].sha256) for i in usable],
        together.groups,
        given_splits=given_splits,
        drawn_by=drawn_by,
    )
    splits = assign_splits(
        together.groups,
        strata,
        [layout.entries[i].split for i in usable],
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        old_splits=old_splits,
    )
    looked_at = [(layout.entries[i].path, inspected[i]) for i in usable]
    rendering, about_rendering = decide_rendering(looked_at, strata, splits)
    with explaining(*warnings):
        warnings += [*together.warnings, *rules.check_splits(layout.root, strata, splits)]
    warnings += about_rendering
    numbers = (together.groups.tolist(), together.pictures.tolist())
    cells = dict(zip(usable, zip(strata, splits, *numbers, strict=True), strict=True))
    decided = [cells.get(i, ("", "", 0, 0)) for i in range(len(inspected))]
    stratum_of, split_of, group_of, picture_of = zip(*decided, strict=True)
    files, labels, _ = zip(*layout.entries, strict=True)
    columns = list(zip(*inspected, strict=True))[: len(FILE_COLUMNS)]
    texts = [map(_storable, column) for column in (files, labels, stratum_of)]
    stored = (texts[0], *columns, texts[1], texts[2], split_of, group_of, reasons, picture_of)
    rows = starmap(ImageRow, zip(*stored, strict=True))
    given = tuple(rows), tuple(warnings), given_splits
    return Manifest(*given, rules.name, rendering, limits, drawn_by)


def _storable(text: str) -> str:
    """As it is, but what no UTF-8 can hold (a file name of other bytes) is spelt out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
