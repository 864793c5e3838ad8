import pytest

from rootstock.plan.pins import Pins
from rootstock.plan.planner import make_transfer_plan
from rootstock.plan.quality import ruled_out, spend_more
from rootstock.plan.report import render_plan
from rootstock.plan.rules import is_finetune
from tests.plan.test_planner import L2_GRID, make_profile, why


def plan_of(quality, **pins):
    profile = make_profile(size="large")
    chosen = spend_more(Pins(**pins), profile, quality)
    plan = make_transfer_plan(
        profile,
        pins=chosen,
        l2_grid=L2_GRID,
        too_slow=ruled_out(chosen, quality),
        quality=quality,
    )
    return profile, plan


def test_fast_trains_a_head_where_balanced_fine_tunes():
    (_, fast), (_, balanced) = plan_of("fast"), plan_of("balanced")
    assert (fast.strategy, balanced.strategy) == ("linear_probe", "full_finetune")
    assert "`quality: fast` trains only a head" in why(fast, "strategy").why


def test_pinned_strategy_is_carried_out_by_fast_too():
    assert plan_of("fast", strategy="full_finetune")[1].strategy == "full_finetune"


def test_best_uses_more_epochs_rates_and_pixels():
    (profile, best), (_, balanced) = plan_of("best"), plan_of("balanced")
    assert best.finetune.epochs == 2 * balanced.finetune.epochs
    assert len(best.finetune_candidates) > len(balanced.finetune_candidates)
    assert best.input_size == profile.backbone.input_size > balanced.input_size


@pytest.mark.parametrize("pins", [{"epochs": 3}, {"learning_rates": (0.1,)}, {"input_size": 160}])
def test_single_settings_take_precedence_over_best(pins):
    ((name, value),) = pins.items()
    assert getattr(spend_more(Pins(**pins), make_profile(), "best"), name) == value


@pytest.mark.parametrize("quality", ["fast", "balanced", "best"])
def test_the_report_says_what_the_word_did(quality):
    profile, plan = plan_of(quality)
    assert f"| quality | {quality} |" in render_plan(plan, profile)


def test_fast_excludes_every_fine_tuning_strategy():
    assert all(map(is_finetune, ruled_out(Pins(), "fast")))
    assert not ruled_out(Pins(), "balanced")
