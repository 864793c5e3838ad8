"""Features of a sample in, DataReview out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from rootstock.assess.profile import DatasetProfile
from rootstock.data.manifest import ImageRow, Manifest
from rootstock.review.doubts import find_bursts, find_outliers, suspect_labels
from rootstock.review.feasible import FEWEST, measure_feasibility
from rootstock.review.findings import gather_findings
from rootstock.review.record import Copies, DataReview, Feasibility
from rootstock.review.shortcuts import collect_facts, find_shortcuts

USUAL_TARGETS = (0.90, 0.95, 0.99)
MOST_COPIES = 50


def build_review(
    manifest: Manifest,
    profile: DatasetProfile,
    *,
    rows: Sequence[ImageRow],
    features: np.ndarray,
    borders: tuple[Sequence[ImageRow], np.ndarray],
    target_accuracy: float | None,
    folds: int,
    seed: int,
) -> DataReview:
    """Ask every question of ``features`` [N,C], which belong to ``rows``.

    ``borders``: some rows and what `border_facts` says of them. Nothing is changed, only told.
    """
    classes = manifest.classes
    labels = np.array([classes.index(row.label) for row in rows])
    feasibility = _feasibility(rows, features, target_accuracy, folds, seed)
    suspects = suspect_labels(rows, features, labels, classes, folds=folds, seed=seed)
    outliers = find_outliers(rows, features)
    bursts = find_bursts(rows, features)
    shortcuts = [
        *find_shortcuts(collect_facts(rows), rows, seed=seed),
        *find_shortcuts({"colour of the border": borders[1]}, borders[0], seed=seed),
    ]
    shortcuts.sort(key=lambda shortcut: -shortcut.accuracy)
    findings = gather_findings(
        profile,
        manifest.summary(),
        feasibility=feasibility,
        suspects=suspects,
        outliers=outliers,
        bursts=bursts,
        shortcuts=shortcuts,
        n_reviewed=len(rows),
    )
    return DataReview(
        data_hash=manifest.content_hash,
        backbone=profile.backbone.name,
        n_reviewed=len(rows),
        findings=tuple(findings),
        feasibility=feasibility,
        suspects=tuple(suspects),
        outliers=tuple(outliers),
        bursts=tuple(bursts),
        copies=tuple(find_copies(manifest)),
        shortcuts=tuple(shortcuts),
    )


def find_copies(manifest: Manifest) -> list[Copies]:
    """At most 50 groups of copies: those of several classes first, then those of several splits."""
    found = [
        Copies(
            paths=tuple(row.path for row in rows),
            labels=tuple(sorted({row.label for row in rows})),
            splits=tuple(sorted({row.split for row in rows})),
        )
        for rows in manifest.copies()
    ]
    found.sort(key=lambda group: (-len(group.labels), -len(group.splits), -len(group.paths)))
    return found[:MOST_COPIES]


def _feasibility(
    rows: Sequence[ImageRow],
    features: np.ndarray,
    target_accuracy: float | None,
    folds: int,
    seed: int,
) -> Feasibility | None:
    # A copy beside its original would be recognised, not classified; test images stay unseen.
    first = {row.group: i for i, row in reversed(list(enumerate(rows))) if row.split != "test"}
    counts = Counter(rows[i].label for i in first.values())
    scarce = sorted(label for label, count in counts.items() if count < FEWEST)
    kept = sorted(i for i in first.values() if counts[rows[i].label] >= FEWEST)
    present, labels = np.unique([rows[i].label for i in kept], return_inverse=True)
    if len(present) < 2:
        return None
    targets = (target_accuracy,) if target_accuracy else USUAL_TARGETS
    found = measure_feasibility(features[kept], labels, folds=folds, targets=targets, seed=seed)
    return found and found.model_copy(update={"left_out": tuple(scarce)})
