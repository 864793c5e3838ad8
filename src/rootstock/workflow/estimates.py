"""What training by each strategy is expected to take on this machine."""

from __future__ import annotations

from pathlib import Path

from rootstock.assess.profile import DatasetProfile
from rootstock.backbones.load import Backbone
from rootstock.config.choices import Strategy
from rootstock.plan import rules
from rootstock.plan.costs import planned_epochs, planned_rates, tuning_size
from rootstock.plan.pins import Pins
from rootstock.train.throughput import Throughput, known_throughput

Estimate = tuple[Throughput, dict[Strategy, float]]
"""The throughput of this machine, and the minutes of training by strategy."""


def estimate_minutes(
    folder: Path, profile: DatasetProfile, backbone: Backbone, pins: Pins
) -> Estimate:
    """Return this machine's throughput, which ``folder`` keeps while it is near, and minutes."""
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
