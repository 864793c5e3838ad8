"""Estimated training times on this machine, and the measured times of the plan itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rootstock.assess.profile import DatasetProfile
from rootstock.backbones.card import pool_tap
from rootstock.backbones.load import Backbone
from rootstock.config.choices import Strategy
from rootstock.plan import rules
from rootstock.plan.costs import head_seconds, planned_epochs, planned_rates, tuning_size
from rootstock.plan.pins import Pins
from rootstock.plan.transfer_plan import TransferPlan
from rootstock.system.files import read_json, write_json
from rootstock.training.throughput import Throughput, known_throughput

Estimate = tuple[Throughput, dict[Strategy, float]]
"""The throughput of this machine, and the minutes of training per strategy."""


def estimate_minutes(
    folder: Path, profile: DatasetProfile, backbone: Backbone, pins: Pins
) -> Estimate:
    """Return this machine's throughput, cached in ``folder`` while it is similar, and minutes."""
    size = tuning_size(profile, pins)
    throughput = known_throughput(folder, backbone, tuning_size=size, check=True)
    minutes = {
        strategy: throughput.minutes(
            strategy,
            n_train=profile.n_train,
            n_val=profile.n_val,
            epochs=planned_epochs(profile, pins, strategy),
            n_rates=planned_rates(profile, pins, strategy),
        )
        for strategy in rules.MEANING
    }
    return throughput, minutes


def trial_minutes(
    throughput: Throughput,
    profile: DatasetProfile,
    backbone: Backbone,
    plan: TransferPlan,
    *,
    networks: int = 1,
) -> float:
    """Return the minutes of all trials of ``plan``, including those that a race has done.

    An ensemble of ``networks`` takes at most that many times as long.
    """
    seconds = 0.0
    for part in (plan, plan.for_raced_head()):
        for tap in part.taps if part else ():
            width = backbone.width(pool_tap(tap, plan.pooling))
            seconds += head_seconds(profile.n_train, width, len(profile.classes))
    epochs = plan.finetune.epochs * len(plan.finetune_candidates) if plan.finetune else 0
    return seconds / 60 + networks * throughput.tuning_minutes(
        plan.strategy, n_train=profile.n_train, n_val=profile.n_val, epochs=epochs
    )


@dataclass(frozen=True)
class PlanMinutes:
    """Minutes of one stage or race on this machine; None: unknown."""

    expected: float | None
    taken: float | None

    @classmethod
    def read(cls, file: Path) -> PlanMinutes:
        """Read what `write` wrote; all is unknown without the file."""
        if not file.exists():
            return cls(None, None)
        return cls(**read_json(file, made_by="plan"))

    def write(self, file: Path) -> None:
        """Write the object as JSON."""
        write_json(file, {"expected": self.expected, "taken": self.taken})


def assessment_file(folder: Path, profile: DatasetProfile) -> Path:
    """Return the file in ``folder`` with the minutes of an assessment."""
    return folder / f"assess-{profile.data_hash[:16]}.json"
