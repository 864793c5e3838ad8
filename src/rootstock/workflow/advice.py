"""Whether a run of the whole pipeline pays after labels have changed, or a new head is enough.

The planner is asked again with the numbers of the labels in force. A run pays if it would choose or
race other strategies than the last one, or if the backbone was fine-tuned on labels of which many
have changed. The ledger says how long it takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from rootstock.assess.profile import DatasetProfile
from rootstock.assess.size import size_class
from rootstock.config.choices import Shares
from rootstock.data.label_corrections import REMOVE, current
from rootstock.plan import rules
from rootstock.plan.ledger import LedgerRow, measure_pace
from rootstock.plan.planner import judge_profile
from rootstock.plan.transfer_plan import Evidence, TransferPlan
from rootstock.workflow.corrections import ProjectLabels

MIN_CHANGED_SHARE = 0.05
"""A backbone is fine-tuned again if this share of the training labels has changed. A judgement."""


class Advice(NamedTuple):
    """``pays``: whether a whole run is worth its ``minutes``, and ``why``, as sentences.

    ``changed`` of the ``n_train`` training images have another label than at the last index, or
    are new. ``points``: what fine-tuning is expected to add to a head.
    """

    pays: bool
    why: str
    changed: int
    n_train: int
    points: tuple[float, float] | None = None
    minutes: float | None = None


def advise_run(
    labels: ProjectLabels,
    profile: DatasetProfile,
    plan: TransferPlan,
    ledger: Iterable[LedgerRow],
    *,
    shares: Shares,
    pinned: bool,
    last_minutes: float | None,
) -> Advice:
    """Return whether another run pays, by the plan of the last run and the labels in force.

    ``pinned``: the settings name the strategy. ``last_minutes`` is how long the last training took.
    """
    targets = _training_targets(labels)
    changed, n_train = labels.count_new(split="train"), len(targets)
    if not changed:
        return Advice(False, "No training label has changed since the last run.", 0, n_train)
    strata = Counter(labels.task.strata(list(targets.values())))
    median = float(np.median(list(strata.values())))
    size = size_class(n_train, median, **profile.thresholds)
    update = {"n_train": n_train, "median_per_class": median, "size_class": size}
    before = judge_profile(profile, shares=shares)
    after = judge_profile(profile.model_copy(update=update), shares=shares)
    points = _expected_points(profile, size, shares)
    rows, share = list(ledger), changed / max(1, n_train)
    if not pinned and (after.choice, after.contest) != (before.choice, before.contest):
        why = (
            f"With {n_train:,} training images the plan would no longer be the same: "
            f"{_describe(after)}, instead of {_describe(before)}."
        )
        minutes = _expected_minutes(plan, after, rows) or last_minutes
        return Advice(True, why, changed, n_train, points, minutes)
    if rules.is_finetune(plan.strategy) and share >= MIN_CHANGED_SHARE:
        why = (
            f"The backbone was fine-tuned on labels of which {100 * share:.0f} % have changed "
            f"since; from {100 * MIN_CHANGED_SHARE:.0f} % on, fine-tuning again is worth it."
        )
        return Advice(True, why, changed, n_train, points, last_minutes)
    why = "A new head learns these labels in seconds, and the plan would stay the same."
    return Advice(False, why, changed, n_train, points, last_minutes)


def _training_targets(labels: ProjectLabels) -> dict[str, str]:
    """Return the label in force of each training image, and of images that were added since."""
    targets = {row.sha256: labels.in_force(row) for row in labels.manifest.rows("train")}
    for row in labels.images:
        if row.quarantine and row.split == "train":  # it was removed, and may have come back
            targets[row.sha256] = labels.in_force(row)
    for sha256, one in current(labels.corrections).items():
        if sha256 not in labels.paths and not one.old:
            targets[sha256] = one.new
    return {sha256: text for sha256, text in targets.items() if text != REMOVE}


def _describe(evidence: Evidence) -> str:
    first, *others = (
        name.replace("_", " ") for name in dict.fromkeys([evidence.choice, *evidence.contest])
    )
    return f"{first} against {others[0]} in a race" if others else first


def _expected_points(
    profile: DatasetProfile, size: str, shares: Shares
) -> tuple[float, float] | None:
    accuracy = {probe.tap: probe.accuracy for probe in profile.probes}.get(
        profile.backbone.taps[-1]
    )
    if accuracy is None:
        return None
    of_size: Mapping[Any, Any] = rules.expected_shares(shares, similar=profile.similarity.similar)
    low, high = (100 * share * (1 - accuracy) for share in of_size[size])
    return round(low, 1), round(high, 1)


def _expected_minutes(
    plan: TransferPlan, evidence: Evidence, rows: list[LedgerRow]
) -> float | None:
    """Return the minutes of the costliest contender, by the pace of this machine's ledger."""
    known = {one.strategy: one.reference_minutes for one in plan.candidates}
    minutes = [
        reference * measure_pace(rows, tuned=rules.is_finetune(one))
        for one in {evidence.choice, *evidence.contest}
        if (reference := known.get(one)) is not None
    ]
    return max(minutes, default=None)
