"""The setting `quality`: one word that sets how much a plan may cost."""

from __future__ import annotations

from dataclasses import replace

from rootstock.assess.profile import DatasetProfile
from rootstock.config.choices import Quality, Strategy
from rootstock.plan import rules
from rootstock.plan.pins import AUTO, Pins

BEST_EPOCHS_FACTOR = 2
"""Epochs of `best` per epoch of the recipe. Not fitted to any set."""


def spend_more(pins: Pins, profile: DatasetProfile, quality: Quality) -> Pins:
    """Return ``pins`` with the effects of `best`: more epochs, more rates, the full input size.

    The user's own settings are kept. All rates of the recipes are tried, those for few and those
    for many images.
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
    """Return the strategies that `fast` excludes, with the reason; empty if one is pinned."""
    if quality != "fast" or pins.strategy != AUTO:
        return {}
    why = "`quality: fast` trains only a head"
    return {name: why for name in rules.MEANING if rules.is_finetune(name)}


def describe_quality(quality: Quality) -> str:
    """Return the meaning of the word, for plan.md."""
    return {
        "fast": "a head on frozen features, without race and fine-tuning",
        "balanced": "fine-tuning if it should pay off, and a race if that is in doubt",
        "best": "all installed backbones are compared; fine-tuning takes twice as long, with more "
        "learning rates and the backbone's own input size",
    }[quality] + "; individual settings in `params.yaml` take precedence."
