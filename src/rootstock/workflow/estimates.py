"""What training by each strategy is expected to take on this machine."""

from __future__ import annotations

from rootstock.assess.profile import DatasetProfile
from rootstock.backbones.load import Backbone
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.plan import rules
from rootstock.plan.costs import planned_epochs, planned_rates, tuning_size
from rootstock.plan.pins import Pins
from rootstock.train.throughput import Throughput, known_throughput

Estimate = tuple[Throughput, dict[rules.Strategy, float]]


def estimate_minutes(
    config: Config, paths: Paths, profile: DatasetProfile, backbone: Backbone
) -> Estimate:
    """Return the throughput of this machine, measured once, and minutes by strategy."""
    # No other pin matters here, and a stage depends on each key of params.yaml that it reads.
    pins = Pins(
        input_size=config.plan.input_size,
        epochs=config.train.epochs,
        learning_rates=config.train.learning_rates,
    )
    throughput = known_throughput(paths.paces, backbone, tuning_size=tuning_size(profile, pins))
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


def read_pins(config: Config) -> Pins:
    """The choices that params.yaml makes in the planner's place."""
    choices = config.plan
    return Pins(
        strategy=choices.strategy,
        tap=choices.tap,
        freeze_through=choices.freeze_through,
        input_size=choices.input_size,
        augmentation=choices.augmentation,
        flip=choices.flip,
        epochs=config.train.epochs,
        learning_rates=config.train.learning_rates,
    )
