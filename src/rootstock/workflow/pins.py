"""The choices of the planner that params.yaml pins.

A stage depends on each key of params.yaml that it reads, so costs read only the keys they need.
"""

from __future__ import annotations

from collections.abc import Sequence

from rootstock.config.schema import Config
from rootstock.plan.pins import AUTO, Pins


def read_pins(config: Config) -> Pins:
    """Return all pinned choices."""
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


def read_candidates(config: Config) -> Sequence[str] | str:
    """Return `backbone.candidates`, or `auto` for `quality: best` if there are none."""
    named = config.backbone.candidates
    return AUTO if config.quality == "best" and not named else named


def read_cost_pins(config: Config) -> Pins:
    """Return the pinned choices that training costs depend on."""
    return Pins(
        input_size=config.plan.input_size,
        epochs=config.train.epochs,
        learning_rates=config.train.learning_rates,
    )
