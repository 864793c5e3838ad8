"""The setting `quality`: one word for what a plan may cost, in the place of single settings."""

from __future__ import annotations

from dataclasses import replace

from rootstock.assess.profile import DatasetProfile
from rootstock.config.choices import Quality, Strategy
from rootstock.plan import rules
from rootstock.plan.pins import AUTO, Pins

BEST_EPOCHS_FACTOR = 2
"""Epochs of `best` for each one that the recipe has. Not fitted to any set."""


def spend_more(pins: Pins, profile: DatasetProfile, quality: Quality) -> Pins:
    """Return ``pins`` with what `best` does: more epochs, more rates, the backbone's own size.

    Settings of the user stay. All rates of the recipes are tried, those for few images and those
    for many.
    """
    if quality != "best":
        return pins
    recipe = rules.RECIPES["partial_finetune"]
    epochs = BEST_EPOCHS_FACTOR * recipe.epochs[profile.size_class]
    rates = tuple(sorted({*recipe.slow_rates, *recipe.learning_rates}))
    return replace(
        pins,
        epochs=epochs if pins.epochs == AUTO else pins.epochs,
        learning_rates=rates if pins.learning_rates == AUTO else pins.learning_rates,
        input_size=profile.backbone.input_size
        if pins.input_size == AUTO and not profile.dense
        else pins.input_size,
    )


def ruled_out(pins: Pins, quality: Quality) -> dict[Strategy, str]:
    """Return the strategies that `fast` does not take, and why; none if one is pinned."""
    if quality != "fast" or pins.strategy != AUTO:
        return {}
    why = "`quality: fast` trains a head only"
    return {name: why for name in rules.MEANING if rules.is_finetune(name)}


def describe_quality(quality: Quality) -> str:
    """Return what the word does, for plan.md."""
    return {
        "fast": "a head on frozen features, no race and no fine-tuning",
        "balanced": "fine-tuning if it is expected to pay, and a race if that is in doubt",
        "best": "all installed backbones are compared; fine-tuning for twice as long, at more "
        "learning rates and at the backbone's own input size",
    }[quality] + "; single settings in `params.yaml` take precedence."
