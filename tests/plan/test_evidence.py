import pytest

from rootstock.config.choices import PRIOR_SHARES
from rootstock.plan import rules
from rootstock.plan.evidence import judge

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


def test_nothing_is_tuned_where_nothing_can_be_won():
    judgement = judged(0.995, size="large")
    assert (judgement.ruled, judgement.choice) == ("full_finetune", "linear_probe")
    assert judgement.contest == ()


def test_a_head_on_small_data_with_many_errors_goes_to_a_race():
    judgement = judged(0.7, size="small", n_train=600)
    assert judgement.contest == ("linear_probe", "partial_finetune")


def test_the_rival_of_a_head_on_dissimilar_data_tunes_every_layer():
    judgement = judged(0.7, size="small", similar=False, n_train=600)
    assert judgement.contest[1] == "probe_then_finetune"


def test_too_few_images_are_not_raced():
    assert judged(0.7, size="small", n_train=40).contest == ()
    assert judged(0.7, size="small", n_train=900, per_class=3.0).contest == ()


@pytest.mark.parametrize(
    ("early", "choice"), [(0.66, "linear_probe"), (0.7, "early_features"), (0.9, "early_features")]
)
def test_probes_overrule_the_table_on_depth_only_beyond_the_noise(early, choice):
    judgement = judged(0.705, early=early, size="small", similar=False, n_train=60)
    assert judgement.ruled == "early_features"
    assert judgement.choice == choice


def test_a_clear_gain_leaves_the_table_standing():
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
