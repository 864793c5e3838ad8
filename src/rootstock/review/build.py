"""Features of a sample in, DataReview out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from rootstock.assess.profile import DatasetProfile
from rootstock.data.manifest import ImageRow, Manifest
from rootstock.review.doubts import find_bursts, find_outliers
from rootstock.review.feasible import MIN_STRATUM_IMAGES, measure_feasibility
from rootstock.review.findings import gather_findings
from rootstock.review.record import MAX_SUSPECTS, Copies, DataReview, Feasibility, Suspect
from rootstock.review.shortcuts import collect_facts, find_shortcuts
from rootstock.tasks.dataset import Dataset, read_targets
from rootstock.tasks.task import Task

USUAL_TARGET_ACCURACIES = (0.90, 0.95, 0.99)
MAX_COPIES = 50


def build_review(
    dataset: Dataset,
    profile: DatasetProfile,
    *,
    rows: Sequence[ImageRow],
    features: np.ndarray,
    borders: tuple[Sequence[ImageRow], np.ndarray],
    target_accuracy: float | None,
    folds: int,
    seed: int,
) -> DataReview:
    """Return the answers to every question about ``features`` [N,C], which belong to ``rows``.

    ``borders``: some rows and what `border_facts` returns for them. Nothing is changed.
    """
    manifest, task = dataset.manifest, dataset.task
    shortcuts = [
        *find_shortcuts(collect_facts(rows), rows, seed=seed),
        *find_shortcuts({"colour of the border": borders[1]}, borders[0], seed=seed),
    ]
    shortcuts.sort(key=lambda shortcut: -shortcut.accuracy)
    review = DataReview(
        data_hash=manifest.content_hash,
        backbone=profile.backbone.name,
        n_reviewed=len(rows),
        findings=(),
        feasibility=_feasibility(task, rows, features, target_accuracy, folds, seed),
        suspects=tuple(_suspects(dataset, rows, features, folds, seed)),
        outliers=tuple(find_outliers(rows, features)),
        bursts=tuple(find_bursts(rows, features)),
        copies=tuple(find_copies(manifest)),
        shortcuts=tuple(shortcuts),
    )
    findings = gather_findings(review, profile, manifest.summary())
    return review.model_copy(update={"findings": findings})


def find_copies(manifest: Manifest) -> list[Copies]:
    """Return at most 50 groups of copies: of several classes, then of several splits first."""
    groups = [
        Copies(
            paths=tuple(row.path for row in rows),
            labels=tuple(sorted({row.target for row in rows})),
            splits=tuple(sorted({row.split for row in rows})),
        )
        for rows in manifest.copies()
    ]
    groups.sort(key=lambda group: (-len(group.labels), -len(group.splits), -len(group.paths)))
    return groups[:MAX_COPIES]


def _suspects(
    dataset: Dataset, rows: Sequence[ImageRow], features: np.ndarray, folds: int, seed: int
) -> list[Suspect]:
    doubts = dataset.task.doubts(features, dataset.targets_of(rows), folds=folds, seed=seed)
    return [
        Suspect(
            path=rows[doubt.row].path,
            label=rows[doubt.row].target,
            suggested=doubt.suggested,
            confidence=doubt.confidence,
        )
        for doubt in doubts[:MAX_SUSPECTS]
    ]


def _feasibility(
    task: Task,
    rows: Sequence[ImageRow],
    features: np.ndarray,
    target_accuracy: float | None,
    folds: int,
    seed: int,
) -> Feasibility | None:
    # A copy next to its original would be recognised, not predicted; test images stay unseen.
    first = {row.group: i for i, row in reversed(list(enumerate(rows))) if row.split != "test"}
    counts = Counter(rows[i].stratum for i in first.values())
    scarce = sorted(name for name, count in counts.items() if count < MIN_STRATUM_IMAGES)
    used = sorted(i for i in first.values() if rows[i].stratum not in scarce)
    if len(counts) - len(scarce) < 2:
        return None
    texts = [rows[i].target for i in used]
    targets = read_targets(task, [rows[i] for i in used], task.read_names(texts))
    goals = (target_accuracy,) if target_accuracy else USUAL_TARGET_ACCURACIES
    feasibility = measure_feasibility(
        task, features[used], targets, folds=folds, goals=goals, seed=seed
    )
    return feasibility and feasibility.model_copy(update={"left_out": tuple(scarce)})
