import pytest

from rootstock.config.choices import PRIOR_SHARES
from rootstock.plan import rules
from rootstock.plan.evidence import contest_to_race, judge, name_rivals

TAPS = ("block1", "block2", "last")


def judged(last, *, early=0.5, size="medium", similar=True, n_train=2000, per_class=100.0, n=500):
    return judge(
        size=size,
        similar=similar,
        n_train=n_train,
        median_per_class=per_class,
        taps=TAPS,
        probes={"block1": 0.4, "block2": early, "last": last},
        n_probed=n,
        shares=rules.expected_shares(PRIOR_SHARES, similar=similar),
    )


def test_no_fine_tuning_without_possible_gain():
    judgement = judged(0.995, size="large")
    assert (judgement.ruled, judgement.choice) == ("full_finetune", "linear_probe")
    assert judgement.contest == ()


def test_small_data_with_many_errors_are_raced():
    judgement = judged(0.7, size="small", n_train=600)
    assert judgement.contest == ("linear_probe", "partial_finetune")


def test_dissimilar_data_race_against_full_finetune():
    judgement = judged(0.7, size="small", similar=False, n_train=600)
    assert judgement.contest[1] == "probe_then_finetune"


def test_too_few_images_are_not_raced():
    assert judged(0.7, size="small", n_train=40).contest == ()
    assert judged(0.7, size="small", n_train=900, per_class=3.0).contest == ()


@pytest.mark.parametrize(
    ("early", "choice"), [(0.66, "linear_probe"), (0.7, "early_features"), (0.9, "early_features")]
)
def test_probes_overrule_table_on_depth_only_beyond_noise(early, choice):
    judgement = judged(0.705, early=early, size="small", similar=False, n_train=60)
    assert judgement.ruled == "early_features"
    assert judgement.choice == choice


def test_clear_gain_keeps_the_table_s_choice():
    judgement = judged(0.955, similar=False, n=5000)
    assert (judgement.choice, judgement.contest) == ("probe_then_finetune", ())


def test_two_ways_of_tuning_never_race():
    assert judged(0.7, similar=False).contest == ()
    assert judged(0.7, similar=False).choice == "probe_then_finetune"


def test_an_unsure_gain_races_tuning_against_the_head():
    assert judged(0.95).contest == ("partial_finetune", "linear_probe")


def test_without_probes_the_table_decides():
    judgement = judge(
        size="small",
        similar=True,
        n_train=10,
        median_per_class=1.0,
        taps=TAPS,
        probes={},
        n_probed=0,
        shares=PRIOR_SHARES,
    )
    assert (judgement.choice, judgement.contest) == ("linear_probe", ())


def test_too_few_images_keep_table_s_fine_tuning():
    assert judged(0.7, n_train=40).choice == "partial_finetune"
    assert judged(0.7, size="small", n_train=40).choice == "linear_probe"


@pytest.mark.parametrize(("n_train", "per_class", "raced"), [(50, 4.0, True), (49, 4.0, False)])
def test_race_needs_fifty_images_and_four_of_class(n_train, per_class, raced):
    judgement = judged(0.7, size="small", n_train=n_train, per_class=per_class)
    assert bool(judgement.contest) is raced
    assert not judged(0.7, size="small", n_train=50, per_class=3.9).contest


def test_noise_of_few_images_hides_fine_tuning_gain():
    assert judged(0.95, size="small", n=10_000).contest  # up to 2 points, noise .2
    assert not judged(0.97, size="small", n=16).contest  # up to 1.2 points, noise 4.3
    assert "not worth its cost" in judged(0.97, size="small", n=16).why


def test_fine_tuning_is_compared_with_better_head():
    judgement = judged(0.5, early=0.9, size="small", n=5000)
    assert judgement.choice == "early_features"
    assert judgement.contest == ("early_features", "partial_finetune")
    assert "reaches 0.900 (± 0.004)" in judgement.why
    assert "the probe of `block2` is 40.0 points above that of `last`" in judgement.why
    assert "-3.0 to +4.0 points" in judgement.why


def test_backbone_of_one_tap_has_linear_head_only():
    judgement = judge(
        size="small",
        similar=False,
        n_train=600,
        median_per_class=100.0,
        taps=("last",),
        probes={"last": 0.7},
        n_probed=500,
        shares=PRIOR_SHARES,
    )
    assert judgement.choice == "linear_probe"


@pytest.mark.parametrize(
    ("changes", "raced"),
    [
        ({}, True),
        ({"too_slow": ["full_finetune"]}, True),
        ({"too_slow": ["partial_finetune"]}, False),
        ({"too_slow": ["linear_probe"]}, False),
        ({"allowed": False}, False),
        ({"pinned": "linear_probe"}, False),
    ],
)
def test_race_runs_if_allowed_and_fast_enough(changes, raced):
    evidence = judged(0.7, size="small", n_train=600)
    options = {"too_slow": [], "allowed": True, "pinned": "auto"} | changes
    contest = ("linear_probe", "partial_finetune")
    assert contest_to_race(evidence, **options) == (contest if raced else ())


@pytest.mark.parametrize(
    ("judgement", "rivals"),
    [
        (judged(0.95), ("partial_finetune", "linear_probe")),  # raced
        (judged(0.995, size="large"), ("linear_probe", "full_finetune")),
        (judged(0.995, size="small"), ("linear_probe", "partial_finetune")),
        (judged(0.7, similar=False), ("probe_then_finetune", "linear_probe")),
    ],
)
def test_who_would_race_is_known_without_a_race(judgement, rivals):
    assert name_rivals(judgement, similar=judgement.ruled != "probe_then_finetune") == rivals
