"""The queue of images that a person should look at, from everything that makes labels doubtful."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rootstock.data.manifest import ImageRow
from rootstock.review.record import Suspect
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import Task

Reason = Literal[
    "doubtful label",
    "model and label differ",
    "answered wrongly",
    "unknown",
    "low confidence",
    "not labelled",
]
RANK_OFFSET = 60
"""The constant of reciprocal rank fusion (Cormack et al. 2009)."""
MIN_UNCERTAINTY = 0.5
"""Answers in the journal below this confidence count as low."""


@dataclass(frozen=True)
class Item:
    """An image and the reason to look at it; ``label`` is empty if it has none.

    ``path`` is relative to the images, or is the path where the image is stored. ``origin`` is the
    request that an image from the service belongs to.
    """

    sha256: str
    path: str
    reason: Reason
    label: str = ""
    suggested: str = ""
    score: float = 0.0
    origin: str = ""


@dataclass(frozen=True)
class QueueRow:
    """An image of the queue with its items, the most pressing first, and its rank from 1."""

    rank: int
    items: tuple[Item, ...]

    @property
    def sha256(self) -> str:
        return self.items[0].sha256

    @property
    def path(self) -> str:
        return self.items[0].path

    @property
    def label(self) -> str:
        return next((item.label for item in self.items if item.label), "")

    @property
    def suggested(self) -> str:
        return next((item.suggested for item in self.items if item.suggested), "")

    @property
    def reasons(self) -> tuple[Reason, ...]:
        return tuple(dict.fromkeys(item.reason for item in self.items))


def merge_queue(*lists: Sequence[Item]) -> list[QueueRow]:
    """Return each image once, images near the top of several lists first.

    Each list begins with its most pressing item. Lists are joined by reciprocal rank fusion.
    """
    scores: dict[str, float] = defaultdict(float)
    items: dict[str, list[tuple[int, int, Item]]] = defaultdict(list)
    for number, some in enumerate(lists):
        for rank, item in enumerate(some, start=1):
            scores[item.sha256] += 1.0 / (RANK_OFFSET + rank)
            items[item.sha256].append((rank, number, item))
    order = sorted(scores, key=lambda sha256: (-scores[sha256], sha256))
    return [
        QueueRow(rank, tuple(item for _, _, item in sorted(items[sha256], key=lambda one: one[:2])))
        for rank, sha256 in enumerate(order, start=1)
    ]


def list_suspects(suspects: Iterable[Suspect], rows: Sequence[ImageRow]) -> list[Item]:
    """Return a review's doubtful labels, without labels that have changed since."""
    of_path = {row.path: row for row in rows}
    return [
        Item(row.sha256, row.path, "doubtful label", one.label, one.suggested, one.confidence)
        for one in suspects
        if (row := of_path.get(one.path)) and row.target == one.label
    ]


def list_disagreements(
    task: Task,
    names: Sequence[str],
    rows: Sequence[ImageRow],
    decisions: np.ndarray,
    targets: Targets,
) -> list[Item]:
    """Return the images on which the model's decision contradicts the label, strongest first.

    ``decisions`` [N,...] and ``targets`` belong to ``rows``, such as the test images.
    """
    against = task.contradiction(decisions, targets)
    if against is None:
        return []
    order = np.argsort(-against, kind="stable")
    said = task.decided(decisions, names) if task.discrete else [""] * len(rows)
    return [
        Item(
            rows[i].sha256,
            rows[i].path,
            "model and label differ",
            rows[i].target,
            said[i],
            round(float(against[i]), 4),
        )
        for i in order
        if against[i] > 0
    ]


def list_requests(
    task: Task, journal: Iterable[Mapping[str, Any]], truth: Mapping[str, str] | None = None
) -> list[Item]:
    """Return answers of the service that a person should judge, the worst first.

    Those are wrong by the feedback ``truth``, the label of an image by its SHA-256, were `unknown`,
    or are of low confidence. ``journal`` are rows of its files; an image that was sent several
    times counts once, and answers of other tasks are left out.
    """
    items: dict[str, Item] = {}
    for row in journal:
        if row.get("task", task.name) != task.name:
            continue
        unsure = task.read_uncertainty(row)
        label = (truth or {}).get(str(row["sha256"]), "")
        if label:
            reason: Reason = "answered wrongly"
            score = 2.0 + float(row.get("novelty") or 0.0)
        elif row.get("unknown"):
            reason = "unknown"
            score = 1.0 + float(row.get("novelty") or 0.0)
        elif unsure is not None and unsure >= MIN_UNCERTAINTY:
            reason, score = "low confidence", unsure
        else:
            continue
        sha256 = str(row["sha256"])
        item = Item(
            sha256,
            f"images/{sha256[:2]}/{sha256}",
            reason,
            suggested=label,
            score=round(score, 4),
            origin=str(row.get("request_id") or ""),
        )
        if sha256 not in items or item.score > items[sha256].score:
            items[sha256] = item
    return sorted(items.values(), key=lambda item: (-item.score, item.sha256))


def doubt_labels(
    task: Task, features: np.ndarray, targets: Targets, *, folds: int, seed: int
) -> np.ndarray | None:
    """Return how doubtful each label is, float64[N], by heads that did not see the image.

    Self-confidence of confident learning (Northcutt et al. 2021). Images in no fold, such as the
    only image of a class, are 0. None if the task has no such measure.
    """
    from rootstock.heads.linear import PROBE_L2  # imports torch

    rows = targets.foldable()
    if not len(rows):
        return None
    outputs = task.head().out_of_fold(
        features, targets, folds=folds, l2=PROBE_L2, seed=seed, rows=rows
    )
    some = targets.take(rows)
    against = task.contradiction(task.decide(outputs, task.calibrate(outputs, some)), some)
    if against is None:
        return None
    doubts = np.zeros(len(targets))
    doubts[rows] = against
    return doubts
