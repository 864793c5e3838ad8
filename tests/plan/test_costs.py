"""Expected cost and accuracy of a strategy, computed by hand."""

import math

import pytest

from rootstock.assess.profile import Probe
from rootstock.config.choices import PRIOR_SHARES
from rootstock.metrics import standard_error
from rootstock.plan.costs import (
    accuracy_error,
    expect_candidate,
    planned_epochs,
    planned_rates,
    tuning_size,
)
from rootstock.plan.pins import Pins
from tests.plan.test_planner import EARLY_PROBES, TAPS, make_profile

HEAD, TUNED = 12.0 * 224**2 / 1e6, 12.0 * 128**2 / 1e6
"""1e9 operations for one image of the profile, at the card's size and at that of fine-tuning."""


def expected(strategy, profile=None, shares=PRIOR_SHARES, **pins):
    return expect_candidate(profile or make_profile(), Pins(**pins), strategy, shares=shares)


def test_head_costs_one_pass_of_images():
    assert expected("linear_probe").gflop == round(240 * HEAD, 1)
    assert expected("linear_probe", input_size=64).gflop == round(240 * 12 * 64**2 / 1e6, 1)


def test_fine_tuning_cost_counts_epochs_rates_and_size():
    # Extraction once; an epoch is one pass forward and two back, and one of the validation images
    epochs = 15 * (3 * 200 + 40)
    assert expected("full_finetune").gflop == round((240 + epochs) * TUNED, 1)
    assert expected("probe_then_finetune").gflop == round((240 + 2 * epochs) * TUNED, 1)
    pinned = expected("full_finetune", epochs=3, learning_rates=(1e-3, 1e-4, 1e-5), input_size=224)
    assert pinned.gflop == round((240 + 3 * 3 * (3 * 200 + 40)) * HEAD, 1)


def test_reference_minutes_are_operations_over_pace():
    candidate = expected("full_finetune")
    assert candidate.reference_minutes == round(candidate.gflop / 20 / 60, 1) > 1


def test_pin_replaces_the_rule_in_costs():
    profile = make_profile()
    assert tuning_size(profile, Pins()) == 128
    assert tuning_size(profile, Pins(input_size=96)) == 96
    assert planned_epochs(profile, Pins(), "full_finetune") == 15
    assert planned_epochs(profile, Pins(epochs=2), "full_finetune") == 2
    assert planned_epochs(profile, Pins(epochs=2), "linear_probe") == 0
    assert planned_rates(profile, Pins(), "probe_then_finetune") == 2
    assert planned_rates(profile, Pins(learning_rates=(0.1,)), "probe_then_finetune") == 1
    assert planned_rates(profile, Pins(learning_rates=(0.1,)), "linear_probe") == 0


def test_head_is_expected_near_probe_of_its_depth():
    profile = make_profile(probes=EARLY_PROBES)
    for strategy, probe in (("linear_probe", 0.55), ("early_features", 0.8)):
        candidate = expected(strategy, profile)
        # 200 probed and 40 test images; 1.645 standard errors on each side hold 90 %
        noise = math.hypot(standard_error(probe, 200), standard_error(probe, 40))
        low, high = probe - 1.645 * noise, probe + 1.645 * noise
        assert candidate.expected_accuracy == (round(low, 3), round(high, 3))
        assert candidate.level == 0.9
    assert expected("linear_probe", profile).basis == "cross-validated probe"


@pytest.mark.parametrize(("similar", "bonus"), [(True, 0.0), (False, 0.25)])
def test_expected_fine_tuning_removes_share_of_errors(similar, bonus):
    # The last tap probes .9; with this many images there is next to no noise
    probes = tuple(
        probe.model_copy(update={"n_images": 10**9, "std": 0.0}) for probe in make_profile().probes
    )
    profile = make_profile(similar=similar, n_test=10**9, probes=probes)
    candidate = expected("full_finetune", profile, {"small": (0.1, 0.5)})
    assert candidate.expected_accuracy == (
        pytest.approx(0.9 + 0.1 * (0.1 + bonus), abs=5e-4),
        pytest.approx(0.9 + 0.1 * (0.5 + bonus), abs=5e-4),
    )
    assert candidate.basis == "prior"


def test_without_probe_of_last_tap_nothing_is_expected():
    probes = (Probe(tap=TAPS[0], accuracy=0.5, std=0.01, n_images=200),)
    assert expected("linear_probe", make_profile(probes=probes)).expected_accuracy is None


def test_one_tap_backbone_has_no_expected_early_features():
    profile = make_profile(probes=(Probe(tap="last", accuracy=0.7, std=0.01, n_images=200),))
    backbone = profile.backbone.model_copy(update={"taps": ("last",)})
    candidate = expected("early_features", profile.model_copy(update={"backbone": backbone}))
    assert candidate.expected_accuracy[0] == 0.0
    assert candidate.expected_accuracy[1] < 0.2


def test_a_tap_that_was_not_probed_promises_nothing():
    probes = tuple(
        Probe(tap=tap, accuracy=0.6, std=0.01, n_images=200) for tap in ("block2", "last")
    )
    low, high = expected("early_features", make_profile(probes=probes)).expected_accuracy
    assert (low + high) / 2 == pytest.approx(0.6)


@pytest.mark.parametrize(("std", "own"), [(0.0, standard_error(0.8, 200)), (0.2, 0.1)])
def test_folds_that_differ_more_than_chance_widen_range(std, own):
    probe = Probe(tap="last", accuracy=0.8, std=std, n_images=200)
    assert accuracy_error(probe, n_test=50) == math.hypot(own, standard_error(0.8, 50))
    assert accuracy_error(probe, n_test=0) == math.hypot(own, standard_error(0.8, 200))
