"""Choose how to fine-tune: freezing, epochs, augmentation and rates, each with its reason."""

from __future__ import annotations

from typing import cast

from rootstock.assess.profile import DatasetProfile
from rootstock.config.choices import Augmentation, Strategy
from rootstock.plan import rules
from rootstock.plan.draft import Draft, check_tap
from rootstock.plan.pins import AUTO, Pins
from rootstock.plan.race_rules import rates_after_race
from rootstock.plan.transfer_plan import FinetuneRecipe, Race


def choose_finetuning(
    draft: Draft, profile: DatasetProfile, pins: Pins, strategy: Strategy
) -> FinetuneRecipe | None:
    """Return how to fine-tune; None if the strategy trains only a head."""
    if not rules.is_finetune(strategy):
        draft.note("freezing", "whole backbone", "Only the head is trained, on cached features.")
        return None
    recipe = rules.RECIPES[strategy]
    frozen = _choose_freezing(draft, profile, pins, strategy)
    epochs = recipe.epochs[profile.size_class] if pins.epochs == AUTO else pins.epochs
    draft.note(
        "epochs",
        epochs,
        f"At most {recipe.epochs[profile.size_class]} for {profile.size_class} data; training "
        "stops early when the validation loss stops falling.",
        pinned=pins.epochs != AUTO,
    )
    level = rules.augmentation_level(strategy, profile.size_class)
    draft.note(
        "augmentation",
        level if pins.augmentation == AUTO else pins.augmentation,
        f"The level `{level}` of random crops, turns and colour changes suits "
        f"{profile.size_class} data.",
        pinned=pins.augmentation != AUTO,
    )
    safe = rules.mirror_is_safe(profile.classes)
    draft.note(
        "mirroring",
        safe if pins.flip == AUTO else pins.flip,
        "No class name looks like a character or a side, so mirror images keep their class."
        if safe
        else "Class names look like characters or sides, whose mirror images may be another class.",
        pinned=pins.flip != AUTO,
    )
    return FinetuneRecipe(
        freeze_through=frozen,
        batchnorm=recipe.batchnorm,
        layer_decay=recipe.layer_decay,
        head_multiplier=recipe.head_multiplier,
        epochs=epochs,
        augmentation=level if pins.augmentation == AUTO else cast(Augmentation, pins.augmentation),
        flip=safe if pins.flip == AUTO else bool(pins.flip),
        norm_only=recipe.norm_only,
    )


def _choose_freezing(
    draft: Draft, profile: DatasetProfile, pins: Pins, strategy: Strategy
) -> str | None:
    if rules.RECIPES[strategy].norm_only:
        why = "Only the scales and offsets of normalisation layers and the head are trained."
        draft.note("freezing", "all but normalisation layers", why)
        return None
    if strategy != "partial_finetune":
        draft.note("freezing", "nothing", _describe_pace(rules.RECIPES[strategy].layer_decay))
        return None
    ruled = rules.freeze_through(profile.backbone.taps)
    pinned = pins.freeze_through != AUTO
    if pinned:
        check_tap(pins.freeze_through, profile.backbone.taps, key="plan.freeze_through")
    frozen = pins.freeze_through if pinned else ruled
    draft.note(
        "freezing",
        f"through {frozen}",
        f"The lower half, up to `{ruled}`, detects edges and textures that your images share "
        "with the pretraining set.",
        pinned=pinned,
    )
    return frozen


def choose_rates(
    draft: Draft, profile: DatasetProfile, pins: Pins, strategy: Strategy, *, race: Race | None
) -> tuple[float, ...]:
    """Return the peak learning rates to try; the winning ones of ``race`` if it was won."""
    if not rules.is_finetune(strategy):
        return ()
    ruled = rules.learning_rates(strategy, profile.n_train)
    if race and race.winner == strategy and pins.learning_rates == AUTO:
        rates = rates_after_race(race, ruled, profile.n_train)
        value = ", ".join(f"{rate:g}" for rate in rates)
        why = "As in the race" if profile.n_train <= rules.MANY_IMAGES else "Low, for many steps"
        draft.note("learning rate", value, f"{why}. This is a peak rate for AdamW.")
        return rates
    pinned = pins.learning_rates != AUTO
    rates = cast(tuple[float, ...], pins.learning_rates) if pinned else ruled
    text = " and ".join(f"{rate:g}" for rate in ruled)
    why = f"Peak rates of {text} for AdamW, one trial each; the validation loss decides."
    draft.note("learning rate", ", ".join(f"{rate:g}" for rate in rates), why, pinned=pinned)
    return rates


def _describe_pace(layer_decay: float) -> str:
    pace = "at the same rate" if layer_decay == 1.0 else "with lower rates for lower layers"
    return f"Every layer is fine-tuned, {pace}."


def pinned_settings(pins: Pins) -> set[str]:
    """Return the pinned settings among those that a search would vary."""
    settings = {"augmentation": pins.augmentation, "freeze_through": pins.freeze_through}
    return {name for name, value in settings.items() if value != AUTO}
