"""DatasetProfile in, TransferPlan out: the rules applied, each choice with its reason.

Long, because every choice stands beside the sentence that explains it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, cast

from rootstock.assess.profile import DatasetProfile
from rootstock.errors import PlanError
from rootstock.plan import rules
from rootstock.plan.costs import expect_candidate
from rootstock.plan.evidence import Judgement, judge
from rootstock.plan.pins import AUTO, Pins
from rootstock.plan.plan import (
    BackboneScore,
    Evidence,
    FinetuneRecipe,
    Race,
    Reason,
    TransferPlan,
)
from rootstock.plan.race import race_rates
from rootstock.plan.rules import Strategy

NOTHING: Mapping[Strategy, str] = MappingProxyType({})
CHEAPER: Mapping[Strategy, tuple[Strategy, ...]] = MappingProxyType(
    {
        "full_finetune": ("partial_finetune", "linear_probe"),
        "probe_then_finetune": ("partial_finetune", "linear_probe"),
        "partial_finetune": ("linear_probe",),
        "early_features": ("early_features",),
        "linear_probe": ("linear_probe",),
    }
)
"""What may stand in for a strategy that takes too long, dearest first; a head always may."""


@dataclass
class _Draft:
    """Reasons collected while the choices are made in order."""

    reasons: list[Reason] = field(default_factory=list)

    def note(self, choice: str, value: object, why: str, *, pinned: bool = False) -> None:
        why = f"Pinned in params.yaml; the rule says: {why}" if pinned else why
        self.reasons.append(Reason(choice=choice, value=str(value), pinned=pinned, why=why))


def judge_profile(profile: DatasetProfile, *, shares: rules.Shares) -> Judgement:
    """The table's choice, weighed against what the probes of ``profile`` show."""
    return judge(
        size=profile.size_class,
        similar=profile.similarity.similar,
        n_train=profile.n_train,
        median_per_class=profile.median_per_class,
        taps=profile.backbone.taps,
        probes={probe.tap: probe.accuracy for probe in profile.probes},
        n_probed=profile.probes[0].n_images if profile.probes else 0,
        shares=rules.expected_shares(shares, similar=profile.similarity.similar),
    )


def make_transfer_plan(
    profile: DatasetProfile,
    *,
    pins: Pins,
    l2_grid: tuple[float, ...],
    shares: rules.Shares = rules.PRIOR_SHARES,
    race: Race | None = None,
    too_slow: Mapping[Strategy, str] = NOTHING,
    backbones: tuple[BackboneScore, ...] = (),
    backbone_why: str = "",
    budget_minutes: float | None = None,
) -> TransferPlan:
    """Choose strategy, depth, freezing, input size, augmentation and search space.

    ``race`` is the outcome of the race that `judge_profile` asked for, if it was run;
    ``too_slow`` maps strategies that are over the limit of minutes to the reason;
    ``backbones`` and ``backbone_why`` tell how the profile's backbone was chosen.
    Raises:
        PlanError: a pinned choice cannot be carried out with this backbone.
    """
    draft = _Draft()
    _note_data(draft, profile, backbone_why)
    judgement = judge_profile(profile, shares=shares)
    strategy = _choose_strategy(draft, profile, pins, judgement, race, too_slow)
    taps = _choose_taps(draft, profile, pins, strategy)
    input_size = _choose_input_size(draft, profile, pins, strategy)
    finetune = _choose_finetuning(draft, profile, pins, strategy)
    raced = race is not None and race.winner == strategy
    rates = _choose_rates(draft, profile, pins, strategy, raced=raced)
    return TransferPlan(
        data_hash=profile.data_hash,
        strategy=strategy,
        size_class=profile.size_class,
        similar=profile.similarity.similar,
        similarity_score=profile.similarity.score,
        backbone=profile.backbone.name,
        weights=profile.backbone.weights,
        weights_sha256=profile.backbone.weights_sha256,
        taps=tuple(taps),
        input_size=input_size,
        finetune=finetune,
        head_candidates=tuple({"tap": tap, "strengths": list(l2_grid)} for tap in taps),
        finetune_candidates=tuple({"learning_rate": rate} for rate in rates),
        finetune_space=rules.search_space(
            strategy,
            profile.backbone.taps,
            n_train=profile.n_train,
            rates=None if pins.learning_rates == AUTO else rates,
            pinned=_pinned_settings(pins),
        ),
        budget_minutes=budget_minutes,
        candidates=tuple(
            expect_candidate(profile, pins, name, shares=shares) for name in rules.MEANING
        ),
        backbones=backbones,
        evidence=Evidence(
            ruled=judgement.ruled,
            choice=judgement.choice,
            contest=judgement.contest,
            why=judgement.why,
        ),
        race=race,
        reasons=tuple(draft.reasons),
    )


def _note_data(draft: _Draft, profile: DatasetProfile, backbone_why: str) -> None:
    limits = profile.thresholds
    draft.note(
        "size",
        profile.size_class,
        f"{profile.n_train} training images, {profile.median_per_class:g} in the median class; "
        f"small is under {limits['small_below']:g} images or under "
        f"{limits['small_per_class_below']:g} a class, large from {limits['large_from']:g} on.",
    )
    similarity = profile.similarity
    word = "similar" if similarity.similar else "not similar"
    evidence = {
        "batchnorm": "what goes into the backbone's BatchNorm layers for your images, against the "
        f"statistics they keep of {profile.backbone.pretrained_on}",
        "reference": "activations at each depth against the reference shipped with the weights",
        "confidence": "how sure the original classifier is of your images",
        "none": "nothing: this backbone has neither BatchNorm, nor a reference, nor a classifier, "
        "so the cautious answer is taken",
    }[similarity.method]
    draft.note(
        "similarity",
        f"{similarity.score:.2f} ({word})",
        f"Measured from {evidence}; {similarity.threshold:g} or more counts as similar.",
    )
    weights = profile.backbone.weights
    why = f"pretrained on {profile.backbone.pretrained_on}, licence {profile.backbone.license}."
    if weights == "embedded":
        why += (
            " This is the small network that Rootstock carries so that it works without a hub: "
            "right for a demo. For real work set backbone.weights to `hub` or to a weights file "
            "and expect clearly better accuracy."
        )
    if backbone_why:
        why = f"{backbone_why} It was {why}"
    draft.note("backbone", f"{profile.backbone.name} ({weights})", why, pinned=False)


def _choose_strategy(
    draft: _Draft,
    profile: DatasetProfile,
    pins: Pins,
    judgement: Judgement,
    race: Race | None,
    too_slow: Mapping[Strategy, str],
) -> Strategy:
    similar = "similar" if profile.similarity.similar else "not similar"
    why = (
        f"the table: {profile.size_class} data, {similar} to the pretraining set -> "
        f"`{judgement.ruled}`. The evidence: {judgement.why}"
    )
    if race:
        why += f" The race: {race.why}"
    elif judgement.contest:
        why += " No race was run, so this choice stands unproven."
    chosen = race.winner if race else judgement.choice
    if chosen in too_slow:
        cheaper = next(name for name in CHEAPER[chosen] if name not in too_slow)
        why += f" But {too_slow[chosen]}, so `{cheaper}` is taken in its place."
        chosen = cheaper
    strategy = chosen if pins.strategy == AUTO else cast(Strategy, pins.strategy)
    why += f" `{strategy}`: {rules.MEANING[strategy]}."
    draft.note("strategy", strategy, why, pinned=pins.strategy != AUTO)
    return strategy


def _choose_taps(
    draft: _Draft, profile: DatasetProfile, pins: Pins, strategy: Strategy
) -> list[str]:
    taps = profile.backbone.taps
    probes = {probe.tap: probe.accuracy for probe in profile.probes}
    ruled = rules.candidate_taps(strategy, taps, probes)
    measured = ", ".join(f"{tap} {accuracy:.3f}" for tap, accuracy in probes.items())
    why = (
        f"the head reads `{ruled[0]}`; probe accuracy by depth: {measured or 'not measured'}."
        if len(ruled) == 1
        else f"the earlier layers with the best probes ({measured}) are tried, "
        "the validation images decide."
    )
    if pins.tap == AUTO:
        draft.note("tap", ", ".join(ruled), why)
        return ruled
    _check_tap(pins.tap, taps, key="plan.tap")
    if rules.is_finetune(strategy) and pins.tap != taps[-1]:
        raise PlanError(
            f"plan.tap is `{pins.tap}`, but `{strategy}` fine-tunes through the last tap "
            f"`{taps[-1]}`",
            hint="pin plan.strategy=early_features for a head on an earlier tap",
        )
    # Joined taps are read shallow to deep, whatever order they were written in.
    parts = pins.tap.split("+")
    tap = "+".join(name for name in taps if name in parts)
    draft.note("tap", tap, why, pinned=True)
    return [tap]


def _choose_input_size(
    draft: _Draft, profile: DatasetProfile, pins: Pins, strategy: Strategy
) -> int:
    card_size = profile.backbone.input_size
    short_side = profile.short_side_quantiles[2]
    if rules.is_finetune(strategy):
        ruled = rules.finetune_input_size(short_side, card_size)
        why = (
            f"the median image is {short_side} pixels on its short side and the backbone was "
            f"trained at {card_size}; fine-tuning adapts to a smaller input, which is cheaper."
        )
    else:
        ruled = card_size
        why = "frozen features are best at the size that the backbone was trained at."
    pinned = pins.input_size != AUTO
    size = cast(int, pins.input_size) if pinned else ruled
    draft.note("input size", size, why, pinned=pinned)
    return size


def _choose_finetuning(
    draft: _Draft, profile: DatasetProfile, pins: Pins, strategy: Strategy
) -> FinetuneRecipe | None:
    if not rules.is_finetune(strategy):
        draft.note("freezing", "whole backbone", "only the head is trained, on cached features.")
        return None
    recipe = rules.RECIPES[strategy]
    frozen = _choose_freezing(draft, profile, pins, strategy)
    epochs = recipe.epochs[profile.size_class] if pins.epochs == AUTO else pins.epochs
    draft.note(
        "epochs",
        epochs,
        f"at most {recipe.epochs[profile.size_class]} for {profile.size_class} data; training "
        "stops early when the validation loss no longer falls.",
        pinned=pins.epochs != AUTO,
    )
    level = rules.augmentation_level(strategy, profile.size_class)
    draft.note(
        "augmentation",
        level if pins.augmentation == AUTO else pins.augmentation,
        f"`{level}` random crops, turns and colour changes for {profile.size_class} data.",
        pinned=pins.augmentation != AUTO,
    )
    safe = rules.mirror_is_safe(profile.classes)
    draft.note(
        "mirroring",
        safe if pins.flip == AUTO else pins.flip,
        "no class name reads like a character or a side, so mirror images keep their class."
        if safe
        else "class names read like characters or sides, whose mirror image may be another class.",
        pinned=pins.flip != AUTO,
    )
    return FinetuneRecipe(
        freeze_through=frozen,
        batchnorm=recipe.batchnorm,
        layer_decay=recipe.layer_decay,
        head_multiplier=recipe.head_multiplier,
        epochs=epochs,
        augmentation=level
        if pins.augmentation == AUTO
        else cast(Literal["none"], pins.augmentation),
        flip=safe if pins.flip == AUTO else bool(pins.flip),
    )


def _choose_freezing(
    draft: _Draft, profile: DatasetProfile, pins: Pins, strategy: Strategy
) -> str | None:
    if strategy != "partial_finetune":
        draft.note("freezing", "nothing", "every layer is fine-tuned, lower ones more slowly.")
        return None
    ruled = rules.freeze_through(profile.backbone.taps)
    pinned = pins.freeze_through != AUTO
    if pinned:
        _check_tap(pins.freeze_through, profile.backbone.taps[:-1], key="plan.freeze_through")
    frozen = pins.freeze_through if pinned else ruled
    draft.note(
        "freezing",
        f"through {frozen}",
        f"the lower half, through `{ruled}`, holds edges and textures that your images share "
        "with the pretraining set.",
        pinned=pinned,
    )
    return frozen


def _choose_rates(
    draft: _Draft, profile: DatasetProfile, pins: Pins, strategy: Strategy, *, raced: bool
) -> tuple[float, ...]:
    if not rules.is_finetune(strategy):
        return ()
    ruled = rules.learning_rates(strategy, profile.n_train)
    if raced and pins.learning_rates == AUTO:
        rates = race_rates(strategy, ruled, profile.n_train)
        value = ", ".join(f"{rate:g}" for rate in rates)
        why = "as in the race" if profile.n_train <= rules.MANY_IMAGES else "low, for many steps"
        draft.note("learning rate", value, f"{why}; a peak rate for AdamW.")
        return rates
    pinned = pins.learning_rates != AUTO
    rates = cast(tuple[float, ...], pins.learning_rates) if pinned else ruled
    text = " and ".join(f"{rate:g}" for rate in ruled)
    why = f"a peak rate of {text} for AdamW, one trial each; the validation loss decides."
    draft.note("learning rate", ", ".join(f"{rate:g}" for rate in rates), why, pinned=pinned)
    return rates


def _pinned_settings(pins: Pins) -> set[str]:
    """Which of the settings that a search would vary are the user's."""
    given = {
        "augmentation": pins.augmentation,
        "freeze_through": pins.freeze_through,
    }
    return {name for name, value in given.items() if value != AUTO}


def _check_tap(tap: str, taps: tuple[str, ...], *, key: str) -> None:
    if any(name not in taps for name in tap.split("+")):
        raise PlanError(
            f"{key} is `{tap}`, which this backbone does not have",
            hint=f"its taps, shallow to deep: {', '.join(taps)}",
        )
