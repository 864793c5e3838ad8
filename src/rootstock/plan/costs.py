"""The expected gain and cost of each strategy."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rootstock.assess.profile import DatasetProfile, Probe
from rootstock.config.choices import Shares, Strategy
from rootstock.metrics import standard_error
from rootstock.plan import rules
from rootstock.plan.pins import AUTO, Pins
from rootstock.plan.transfer_plan import StrategyForecast

REFERENCE_GFLOPS = 20.0
"""1e9 operations per second that the two-core reference machine reaches on small networks.

A constant, not measured, so that a plan is the same on every machine."""

HEAD_OPERATIONS = 4_000
"""Operations of a head's whole search per image, feature and class: measured on random features,
160 to 1,500 images, 2 to 12 classes."""
HEAD_SECONDS = 0.1
"""Fixed cost of a head, in addition."""
DEGREES_OF_FREEDOM = 4
"""Degrees of freedom of the deviation over the default five folds."""


def tuning_size(profile: DatasetProfile, pins: Pins) -> int:
    """Return the side of the input in pixels for fine-tuning."""
    if pins.input_size != AUTO:
        return pins.input_size
    if profile.dense:
        return rules.dense_input_size(profile.backbone.input_size)
    return rules.finetune_input_size(profile.fitted_side, profile.backbone.input_size)


def planned_epochs(profile: DatasetProfile, pins: Pins, strategy: Strategy) -> int:
    """Return the maximum number of epochs of fine-tuning; 0 for a head."""
    if strategy not in rules.RECIPES:
        return 0
    return (
        rules.RECIPES[strategy].epochs[profile.size_class] if pins.epochs == AUTO else pins.epochs
    )


def planned_rates(profile: DatasetProfile, pins: Pins, strategy: Strategy) -> int:
    """Return the number of learning rates to try; 0 for a head."""
    ruled = rules.learning_rates(strategy, profile.n_train)
    return len(pins.learning_rates) if ruled and pins.learning_rates != AUTO else len(ruled)


def head_seconds(n_train: int, width: int, n_classes: int) -> float:
    """Return the seconds of the search for a linear head on ``width`` features."""
    products = n_train * width * n_classes
    return HEAD_SECONDS + HEAD_OPERATIONS * products / (REFERENCE_GFLOPS * 1e9)


def expect_candidate(
    profile: DatasetProfile, pins: Pins, strategy: Strategy, *, shares: Shares
) -> StrategyForecast:
    """Return the expected accuracy and work; ``shares`` is as in `rules.expected_accuracy`."""
    probes = {probe.tap: probe.accuracy for probe in profile.probes}
    taps = profile.backbone.taps
    early = max((probes.get(tap, 0.0) for tap in taps[:-1]), default=0.0)
    expected = None
    if taps[-1] in probes:
        best = early if strategy == "early_features" else probes[taps[-1]]
        probe = min(profile.probes, key=lambda probe: abs(probe.accuracy - best))
        low, high = rules.expected_accuracy(
            strategy,
            profile.size_class,
            shares=rules.expected_shares(shares, similar=profile.similarity.similar),
            probe_last=probes[taps[-1]],
            probe_early=early,
            error=accuracy_error(probe, n_test=profile.n_test),
        )
        expected = (round(low, 3), round(high, 3))
    gflop = _gflop(profile, pins, strategy)
    return StrategyForecast(
        strategy=strategy,
        expected_accuracy=expected,
        level=None if expected is None else rules.EXPECTED_LEVEL,
        basis="prior" if rules.is_finetune(strategy) else "cross-validated probe",
        gflop=round(gflop, 1),
        reference_minutes=round(gflop / REFERENCE_GFLOPS / 60, 1),
    )


def accuracy_error(probe: Probe, *, n_test: int) -> float:
    """Return the standard error of an accuracy on ``n_test`` images around that of ``probe``.

    The error of the probe is the larger of the binomial error and the spread of its folds; the
    error of the test images is added.
    """
    by_folds = probe.std / math.sqrt(DEGREES_OF_FREEDOM)
    own = max(standard_error(probe.accuracy, probe.n_images), by_folds)
    return math.hypot(own, standard_error(probe.accuracy, n_test or probe.n_images))


def find_too_slow(minutes: Mapping[Strategy, float], *, limit: float | None) -> dict[Strategy, str]:
    """Return the fine-tuning strategies that take over ``limit`` minutes, with the reason."""
    return {
        name: f"`{name}` would take {needed:.1f} minutes here, over plan.budget.minutes {limit:g}"
        for name, needed in minutes.items()
        if limit is not None and needed > limit and rules.is_finetune(name)
    }


def _gflop(profile: DatasetProfile, pins: Pins, strategy: Strategy) -> float:
    backbone = profile.backbone
    tune_size = tuning_size(profile, pins)
    plain = pins.input_size == AUTO and not profile.dense
    head_size = backbone.input_size if plain else tune_size
    per_image = {
        size: backbone.gflop_per_megapixel * size * size / 1e6 for size in (head_size, tune_size)
    }
    return rules.training_gflop(
        strategy,
        n_train=profile.n_train,
        n_val=profile.n_val,
        epochs=planned_epochs(profile, pins, strategy),
        n_rates=planned_rates(profile, pins, strategy),
        gflop_probe=per_image[tune_size if rules.is_finetune(strategy) else head_size],
        gflop_finetune=per_image[tune_size],
    )
