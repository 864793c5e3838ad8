"""Manifest: the table of images, one row each, made by decoding every image once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rootstock.data.decode import DecodeLimits
from rootstock.data.duplicates import group_duplicates
from rootstock.data.inspect import Inspected
from rootstock.data.inspection_cache import FACTS, look_at
from rootstock.data.layout import SPLITS, Layout
from rootstock.data.splits import assign_splits
from rootstock.errors import ArtifactError, DataError
from rootstock.system.files import explain_format
from rootstock.system.tables import DAMAGE, read_table, write_rows

FORMAT_VERSION = 1
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        *FACTS,
        ("label", pa.string()),
        ("split", pa.string()),
        ("group", pa.int64()),
        ("quarantine", pa.string()),
    ]
)


class ImageRow(NamedTuple):
    """One image; ``quarantine`` is the reason why it is not used, empty where it is."""

    path: str
    sha256: str
    bytes: int
    width: int
    height: int
    mode: str
    format: str
    label: str
    split: str
    group: int
    quarantine: str


@dataclass(frozen=True)
class Manifest:
    """All rows in order of path, and what was noticed while listing them."""

    images: tuple[ImageRow, ...]
    warnings: tuple[str, ...] = ()
    given_splits: tuple[str, ...] = ()

    @cached_property
    def classes(self) -> list[str]:
        """Labels of usable images, sorted; the position is the class number."""
        return sorted({row.label for row in self.images if not row.quarantine})

    @property
    def quarantined(self) -> list[ImageRow]:
        """Rows that are not used."""
        return [row for row in self.images if row.quarantine]

    def rows(self, split: str | None = None) -> list[ImageRow]:
        """Usable rows of one split, or of all."""
        return [r for r in self.images if not r.quarantine and split in (None, r.split)]

    def labels(self, split: str | None = None) -> np.ndarray:
        """Class numbers int64[N] of `rows`."""
        number = {label: index for index, label in enumerate(self.classes)}
        return np.array([number[row.label] for row in self.rows(split)], dtype=np.int64)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of which images there are, how labelled and how split; 64 hex digits."""
        digest = hashlib.sha256()
        for row in self.images:
            fields = (row.path, row.sha256, row.label, row.split, row.quarantine)
            digest.update(json.dumps(fields).encode())
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        """Write as Parquet; the same manifest gives the same bytes."""
        facts = {
            "format_version": FORMAT_VERSION,
            "warnings": self.warnings,
            "given_splits": self.given_splits,
        }
        write_rows(self.images, SCHEMA.with_metadata({"rootstock": json.dumps(facts)}), path)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read what `write` wrote.

        Raises:
            ArtifactError: the file is missing, damaged or of another format version.
        """
        hint = "run the stage `index` again"
        try:
            table = read_table(path)
            facts = json.loads((table.schema.metadata or {})[b"rootstock"])
            problem = explain_format(facts["format_version"], FORMAT_VERSION, path=path, again=hint)
            rows = () if problem else tuple(ImageRow(**row) for row in table.to_pylist())
            manifest = cls(rows, tuple(facts["warnings"]), tuple(facts["given_splits"]))
        except FileNotFoundError:
            raise ArtifactError(f"{path} is missing", hint=hint) from None
        except DAMAGE as error:
            raise ArtifactError(f"{path} is not a manifest: {error}", hint=hint) from None
        if problem:
            raise ArtifactError(problem[0], hint=problem[1])
        return manifest

    def copies(self) -> list[list[ImageRow]]:
        """Groups of two or more usable rows that hold the same picture, or nearly."""
        usable = self.rows()
        sizes = Counter(row.group for row in usable)
        members: dict[int, list[ImageRow]] = {}
        for row in usable:
            if sizes[row.group] > 1:
                members.setdefault(row.group, []).append(row)
        return list(members.values())

    def summary(self) -> dict[str, Any]:
        """Counts, quarantine, duplicates, conflicts and leaks, as JSON holds them."""
        usable = self.rows()
        counts = Counter((row.label, row.split) for row in usable)
        groups = self.copies()
        return {
            "n_images": len(self.images),
            "n_usable": len(usable),
            "classes": {
                label: {split: counts[label, split] for split in SPLITS} for label in self.classes
            },
            "quarantined": [{"path": r.path, "reason": r.quarantine} for r in self.quarantined],
            "quarantine_reasons": dict(Counter(r.quarantine for r in self.quarantined)),
            "duplicate_groups": [_paths(rows) for rows in groups],
            "label_conflicts": [
                _paths(rows) for rows in groups if len({r.label for r in rows}) > 1
            ],
            "leaks_across_given_splits": [
                _paths(rows) for rows in groups if len({r.split for r in rows}) > 1
            ],
            "warnings": list(self.warnings),
        }


def _paths(rows: Sequence[ImageRow]) -> list[str]:
    return [row.path for row in rows]


def build_manifest(
    layout: Layout,
    *,
    limits: DecodeLimits,
    val_fraction: float,
    test_fraction: float,
    near_duplicate_bits: int,
    min_per_class: int,
    seed: int,
    workers: int | None = None,
    memory: Path | None = None,
    on_seen: Callable[[list[Inspected]], None] | None = None,
) -> Manifest:
    """Decode every image of ``layout`` once and decide its split.

    ``workers`` is the number of decoding processes; None: one a core. ``memory`` is a file that
    keeps what was seen, so that the next run reads what is new or has changed, nothing else.
    ``on_seen`` is called with what was seen, before anything is made of it.
    Raises:
        DataError: there are fewer than two classes, or a class has fewer than ``min_per_class``
            usable images.
    """
    inspected = look_at(layout, limits=limits, workers=workers, memory=memory, on_seen=on_seen)
    usable = [i for i, image in enumerate(inspected) if not image.reason]
    labels = [layout.entries[i].label for i in usable]
    _check_classes(layout.root, labels, {e.label for e in layout.entries}, min_per_class)
    groups = group_duplicates(
        [inspected[i].sha256 for i in usable],
        [inspected[i].thumb for i in usable],
        bits=near_duplicate_bits,
    )
    splits = assign_splits(
        groups,
        labels,
        [layout.entries[i].given for i in usable],
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
    )
    warnings = [*layout.warnings, *_check_splits(layout.root, labels, splits)]
    split_of, group_of = [""] * len(inspected), [0] * len(inspected)
    for i, split, group in zip(usable, splits, groups.tolist(), strict=True):
        split_of[i], group_of[i] = split, group
    paths, names, _ = zip(*layout.entries, strict=True)
    *facts, reasons, _, _ = zip(*inspected, strict=True)
    stored = (map(_storable, paths), *facts, map(_storable, names), split_of, group_of, reasons)
    rows = starmap(ImageRow, zip(*stored, strict=True))
    given = tuple(sorted({entry.given for entry in layout.entries if entry.given}))
    return Manifest(tuple(rows), tuple(warnings), given)


def _check_classes(root: Path, labels: list[str], listed: set[str], min_per_class: int) -> None:
    counts = Counter(labels)
    if len(listed) < 2:
        raise DataError(
            f"{root} has one class, {', '.join(listed)}; a classifier needs two or more",
            hint="put the images of each class into a folder of its own",
        )
    if not counts:
        raise DataError(
            f"none of the files in {root} is a usable image",
            hint="`rootstock check` lists each file with the reason",
        )
    scarce = {label: counts[label] for label in sorted(listed) if counts[label] < min_per_class}
    if scarce:
        text = ", ".join(f"{label} ({count})" for label, count in scarce.items())
        raise DataError(
            f"{root} has classes with fewer than {min_per_class} usable images: {text}",
            hint="add images, remove the class, or lower data.min_per_class (not under 2)",
        )


def _check_splits(root: Path, labels: list[str], splits: list[str]) -> list[str]:
    """A warning for each split that lacks classes; raises where training would lack one."""
    classes = set(labels)
    missing = {
        name: sorted(classes - {a for a, b in zip(labels, splits, strict=True) if b == name})
        for name in SPLITS
    }
    if missing["train"]:
        raise DataError(
            f"{root} has no training image of {', '.join(missing['train'])}",
            hint="a class is learnt from the images in train/: add some, or remove the class",
        )
    return [
        f"no image of {', '.join(lacking)} in {name}: accuracy there says nothing of them"
        for name, lacking in missing.items()
        if lacking and name in splits
    ]


def _storable(text: str) -> str:
    """As it is, but what no UTF-8 can hold (a file name of other bytes) is spelt out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
