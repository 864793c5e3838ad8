"""Apply the rules to a DatasetProfile, and return a TransferPlan with reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from rootstock.assess.profile import DatasetProfile
from rootstock.assess.shape import MIN_LEAD_ERRORS
from rootstock.backbones.licence import describe_licence
from rootstock.config.choices import PRIOR_SHARES, Quality, Shares, Strategy
from rootstock.errors import PlanError
from rootstock.plan import rules
from rootstock.plan.costs import expect_candidate
from rootstock.plan.draft import Draft, check_tap
from rootstock.plan.evidence import judge
from rootstock.plan.finetune_choices import choose_finetuning, choose_rates, pinned_settings
from rootstock.plan.pins import AUTO, Pins
from rootstock.plan.quality import describe_quality
from rootstock.plan.transfer_plan import (
    BackboneScore,
    Evidence,
    Race,
    RacedHead,
    TransferPlan,
)
from rootstock.system.escape import escape_markdown

NONE_TOO_SLOW: Mapping[Strategy, str] = MappingProxyType({})
CHEAPER_STRATEGIES: Mapping[Strategy, tuple[Strategy, ...]] = MappingProxyType(
    {
        "full_finetune": ("partial_finetune", "linear_probe"),
        "probe_then_finetune": ("partial_finetune", "linear_probe"),
        "partial_finetune": ("linear_probe",),
        "norm_finetune": ("linear_probe",),
        "early_features": ("early_features",),
        "linear_probe": ("linear_probe",),
    }
)
"""Replacements for a strategy that is too slow, the most expensive first; a head always fits."""


def judge_profile(profile: DatasetProfile, *, shares: Shares) -> Evidence:
    """Return the table's choice, weighed against the probes of ``profile``."""
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
    shares: Shares = PRIOR_SHARES,
    race: Race | None = None,
    contender: Strategy | None = None,
    too_slow: Mapping[Strategy, str] = NONE_TOO_SLOW,
    backbones: tuple[BackboneScore, ...] = (),
    backbone_why: str = "",
    budget_minutes: float | None = None,
    quality: Quality = "balanced",
) -> TransferPlan:
    """Choose strategy, depth, freezing, input size, augmentation and search space.

    ``race`` is the result of the race that `judge_profile` asked for, if it was run. For the race
    itself, ``contender`` replaces the strategy of the evidence. ``too_slow`` maps strategies that
    exceed the limit of minutes to the reason. ``backbones`` and ``backbone_why`` explain the choice
    of the profile's backbone.
    Raises:
        PlanError: a pinned choice is not possible with this backbone.
    """
    draft = Draft()
    draft.note("quality", quality, describe_quality(quality))
    _note_data(draft, profile, backbone_why)
    evidence = judge_profile(profile, shares=shares)
    strategy = contender or _choose_strategy(draft, profile, pins, evidence, race, too_slow)
    taps = _choose_taps(draft, profile, pins, strategy)
    input_size = _choose_input_size(draft, profile, pins, strategy)
    finetune = choose_finetuning(draft, profile, pins, strategy)
    rates = choose_rates(draft, profile, pins, strategy, race=race)
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
        geometry=profile.geometry,
        pooling=profile.pooling,
        score_name=profile.score_name,
        finetune=finetune,
        head_candidates=_head_candidates(taps, l2_grid),
        finetune_candidates=tuple({"learning_rate": rate} for rate in rates),
        finetune_space=rules.search_space(
            strategy,
            profile.backbone.taps,
            n_train=profile.n_train,
            rates=None if pins.learning_rates == AUTO else rates,
            pinned=pinned_settings(pins),
        ),
        budget_minutes=budget_minutes,
        candidates=tuple(
            expect_candidate(profile, pins, name, shares=shares) for name in rules.MEANING
        ),
        backbones=backbones,
        evidence=evidence,
        race=race,
        raced_head=_raced_head(profile, pins, strategy, race, l2_grid),
        reasons=tuple(draft.reasons),
    )


def _head_candidates(taps: Sequence[str], l2_grid: tuple[float, ...]) -> tuple[dict[str, Any], ...]:
    return tuple({"tap": tap, "strengths": list(l2_grid)} for tap in taps)


def _raced_head(
    profile: DatasetProfile,
    pins: Pins,
    strategy: Strategy,
    race: Race | None,
    l2_grid: tuple[float, ...],
) -> RacedHead | None:
    """Return the head that ``strategy`` has beaten in ``race``, or None."""
    if race is None or race.winner != strategy:
        return None
    head = next((h.strategy for h in race.heats if not rules.is_finetune(h.strategy)), None)
    if head is None or head == strategy:
        return None
    taps = _choose_taps(Draft(), profile, pins, head)
    return RacedHead(
        strategy=head,
        taps=tuple(taps),
        input_size=_choose_input_size(Draft(), profile, pins, head),
        head_candidates=_head_candidates(taps, l2_grid),
    )


def _note_data(draft: Draft, profile: DatasetProfile, backbone_why: str) -> None:
    limits = profile.thresholds
    draft.note(
        "size",
        profile.size_class,
        f"{profile.n_train:,} training images, {profile.median_per_class:g} of them in the median "
        f"class; small means fewer than {limits['small_below']:,g} images or fewer than "
        f"{limits['small_per_class_below']:g} per class, large at least {limits['large_from']:,g}.",
    )
    similarity = profile.similarity
    word = "similar" if similarity.similar else "not similar"
    source = {
        "batchnorm": "the inputs of the backbone's BatchNorm layers for your images, compared with "
        f"their statistics for {profile.backbone.pretrained_on}",
        "reference": "activations at each depth, compared with the reference of the weights",
        "confidence": "the confidence of the original classifier on your images",
        "none": "nothing, because this backbone has neither BatchNorm, nor a reference, nor a "
        "classifier; the cautious answer is used",
    }[similarity.method]
    draft.note(
        "similarity",
        f"{similarity.score:.2f} ({word})",
        f"Measured from {source}; a score of at least {similarity.threshold:g} counts as similar.",
    )
    _note_geometry(draft, profile)
    if profile.pooling != "avg":
        why = "With `features.pooling` set, the head reads the maximum of each map"
        why += " in addition to its mean." if profile.pooling == "both" else " instead of its mean."
        draft.note("pooling", profile.pooling, why)
    weights = profile.backbone.weights
    origin, licence = profile.backbone.pretrained_on, profile.backbone.license
    terms = escape_markdown(describe_licence(licence))
    why = f"It was pretrained on {escape_markdown(origin)}, {terms}."
    if backbone_why:
        why = f"{backbone_why} {why}"
    draft.note("backbone", f"{profile.backbone.name} ({weights})", why, pinned=False)


def _note_geometry(draft: Draft, profile: DatasetProfile) -> None:
    probes = profile.geometry_probes
    why = f"The long side of the median image is {profile.aspect_ratio:.2f} times the short side"
    if probes:
        measured = ", ".join(
            f"{one.geometry} {one.log_loss:.3f} (± {one.noise:.3f})" for one in probes
        )
        why += (
            f"; log-loss of probes on {probes[0].n_images} images: {measured}. Another way than "
            f"the crop is used if it leads by {MIN_LEAD_ERRORS:g} standard errors"
        )
    draft.note("geometry", profile.geometry, f"{why}.")


def _choose_strategy(
    draft: Draft,
    profile: DatasetProfile,
    pins: Pins,
    evidence: Evidence,
    race: Race | None,
    too_slow: Mapping[Strategy, str],
) -> Strategy:
    similar = "similar" if profile.similarity.similar else "not similar"
    why = (
        f"The table for {profile.size_class} data that are {similar} to the pretraining set says "
        f"`{evidence.ruled}`. Evidence: {evidence.why}"
    )
    if race:
        why += f" Race: {race.why}"
    elif evidence.contest:
        why += " No race was run, so this choice is not confirmed."
    chosen = race.winner if race else evidence.choice
    if chosen in too_slow:
        cheaper = next(name for name in CHEAPER_STRATEGIES[chosen] if name not in too_slow)
        why += f" But {too_slow[chosen]}, so `{cheaper}` is used instead."
        chosen = cheaper
    strategy = chosen if pins.strategy == AUTO else cast(Strategy, pins.strategy)
    why += f" `{strategy}`: {rules.MEANING[strategy]}."
    draft.note("strategy", strategy, why, pinned=pins.strategy != AUTO)
    return strategy


def _choose_taps(
    draft: Draft, profile: DatasetProfile, pins: Pins, strategy: Strategy
) -> list[str]:
    taps = profile.backbone.taps
    probes = {probe.tap: probe.accuracy for probe in profile.probes}
    ruled = rules.candidate_taps(strategy, taps, probes, pinned=pins.strategy != AUTO)
    score = profile.score_name
    measured = ", ".join(f"{tap} {value:.3f}" for tap, value in probes.items())
    why = (
        f"The head reads `{ruled[0]}`. The {score} of probes by depth: "
        f"{measured or 'not measured'}."
        if len(ruled) == 1
        else "These are compared by the loss on all training and validation images, each with a "
        f"head that has not seen it. The {score} of probes by depth: {measured or 'not measured'}."
    )
    if pins.tap == AUTO:
        draft.note("tap", ", ".join(ruled), why)
        return ruled
    check_tap(pins.tap, taps, key="plan.tap")
    if rules.is_finetune(strategy) and pins.tap != taps[-1]:
        raise PlanError(
            f"plan.tap is `{pins.tap}`, but `{strategy}` fine-tunes up to the last tap "
            f"`{taps[-1]}`",
            hint="set plan.strategy=early_features for a head on an earlier tap",
        )
    # Joined taps are read from shallow to deep, in whatever order they were written.
    parts = pins.tap.split("+")
    tap = "+".join(name for name in taps if name in parts)
    draft.note("tap", tap, why, pinned=True)
    return [tap]


def _choose_input_size(
    draft: Draft, profile: DatasetProfile, pins: Pins, strategy: Strategy
) -> int:
    card_size = profile.backbone.input_size
    if profile.dense:
        ruled = rules.dense_input_size(card_size)
        why = (
            f"The backbone was trained at {card_size} pixels; outputs for positions gain from a "
            "larger input, since small objects then cover more cells."
        )
    elif rules.is_finetune(strategy):
        ruled = rules.finetune_input_size(profile.fitted_side, card_size)
        side = "short" if profile.geometry == "crop" else "long"
        why = (
            f"The median image is {profile.fitted_side:.0f} pixels on its {side} side and the "
            f"backbone was trained at {card_size}; fine-tuning adapts to a smaller input, which is "
            "cheaper."
        )
    else:
        ruled = card_size
        why = "Frozen features are best at the input size of the backbone's training."
    pinned = pins.input_size != AUTO
    size = cast(int, pins.input_size) if pinned else ruled
    draft.note("input size", size, why, pinned=pinned)
    return size
