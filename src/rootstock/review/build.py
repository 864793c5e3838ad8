"""Build the DataReview from the features of a sample."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from rootstock.assess.profile import DatasetProfile
from rootstock.data.groups import join_keys
from rootstock.data.manifest import ImageRow, Manifest
from rootstock.review.doubts import find_bursts, find_outliers
from rootstock.review.feasible import MIN_STRATUM_IMAGES, measure_feasibility
from rootstock.review.findings import gather_findings
from rootstock.review.grouping import find_groups, measure_groups
from rootstock.review.record import MAX_SUSPECTS, Copies, DataReview, Feasibility, Suspect
from rootstock.review.shortcuts import collect_facts, collect_picture_facts, find_shortcuts
from rootstock.tasks import get_task
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
    """Return the complete review of ``features`` [N,C], which belong to ``rows``.

    ``borders`` are some rows with their `measure_picture` results. Nothing is changed.
    """
    manifest, task = dataset.manifest, dataset.task
    named = [row._replace(target=task.caption(row.target)) for row in rows]
    suspected, names = find_groups(rows, features) or (None, [""] * len(rows))
    if suspected:
        scores = measure_groups(task, rows, features, names, folds=folds, seed=seed)
        divided, whole = (round(score, 4) for score in scores) if scores else (None, None)
        suspected = suspected.model_copy(
            update={
                "score_divided": divided,
                "score_whole": whole,
                "splits_given": bool(manifest.given_splits),
            }
        )
    groups = join_keys(
        [
            [("group", row.group) for row in rows],
            [("name", name) if name else ("row", i) for i, name in enumerate(names)],
        ]
    )
    group_of = {row.path: group for row, group in zip(rows, groups, strict=True)}
    shortcuts = []
    for facts, some in (
        (collect_facts(rows), rows),
        (collect_picture_facts(*borders), borders[0]),
    ):
        together = [group_of[row.path] for row in some]
        shortcuts += find_shortcuts(facts, some, seed=seed, groups=together)
    shortcuts.sort(key=lambda shortcut: -shortcut.accuracy)
    review = DataReview(
        data_hash=manifest.content_hash,
        backbone=profile.backbone.name,
        n_reviewed=len(rows),
        n_strata=len({row.stratum for row in rows}),
        findings=(),
        feasibility=_feasibility(
            task, rows, features, target_accuracy, folds, seed, np.array(groups)
        ),
        suspects=tuple(_suspects(dataset, rows, features, np.array(groups), folds, seed)),
        outliers=tuple(find_outliers(named, features)),
        bursts=tuple(find_bursts(rows, features)),
        copies=tuple(find_copies(manifest)),
        shortcuts=tuple(shortcuts),
        groups=suspected,
    )
    findings = gather_findings(review, profile, manifest.summary())
    return review.model_copy(update={"findings": findings})


def find_copies(manifest: Manifest) -> list[Copies]:
    """Return at most 50 groups of copies: those of several classes first, then several splits."""
    task = get_task(manifest.task)
    groups = [
        Copies(
            paths=tuple(row.path for row in rows),
            labels=tuple(sorted({task.caption(row.target) for row in rows})),
            splits=tuple(sorted({row.split for row in rows})),
        )
        for rows in manifest.copies()
    ]
    groups.sort(key=lambda group: (-len(group.labels), -len(group.splits), -len(group.paths)))
    return groups[:MAX_COPIES]


def _suspects(
    dataset: Dataset,
    rows: Sequence[ImageRow],
    features: np.ndarray,
    groups: np.ndarray,
    folds: int,
    seed: int,
) -> list[Suspect]:
    targets = dataclasses.replace(dataset.targets_of(rows), groups=groups)
    doubts = dataset.task.doubts(features, targets, folds=folds, seed=seed)
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
    groups: np.ndarray,
) -> Feasibility | None:
    if task.output_grid:
        return None  # whole-image features do not show what is possible at each position
    # A copy next to its original would be recognised, not predicted. Test images are not used.
    first = {row.picture: i for i, row in reversed(list(enumerate(rows))) if row.split != "test"}
    counts = Counter(rows[i].stratum for i in first.values())
    pairs = {(rows[i].stratum, groups[i]) for i in first.values()}
    group_counts = Counter(stratum for stratum, _ in pairs)
    scarce = sorted(
        name
        for name, count in counts.items()
        if count < MIN_STRATUM_IMAGES or group_counts[name] < 2
    )
    used = sorted(i for i in first.values() if rows[i].stratum not in scarce)
    if len(counts) - len(scarce) < 2:
        return None
    texts = [rows[i].target for i in used]
    targets = read_targets(task, [rows[i] for i in used], task.read_names(texts))
    targets = dataclasses.replace(targets, groups=groups[used])
    goals = (target_accuracy,) if target_accuracy else USUAL_TARGET_ACCURACIES
    feasibility = measure_feasibility(
        task,
        features[used],
        targets,
        folds=folds,
        goals=goals,
        seed=seed,
    )
    return feasibility and feasibility.model_copy(update={"left_out": tuple(scarce)})
