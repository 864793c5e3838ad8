import pytest

from rootstock.plan.race_rules import (
    decide,
    is_in_doubt,
    is_settled,
    lower_rate,
    rates_after_race,
    round_sizes,
)
from rootstock.plan.transfer_plan import Heat


def heat(strategy, accuracy, *, log_loss=0.5, n_val=200, rates=(), valid=True, splits=1):
    return Heat(
        strategy=strategy,
        n_train=500,
        n_val=n_val,
        epochs=5,
        accuracy=accuracy,
        log_loss=log_loss,
        rates=rates,
        valid=valid,
        splits=splits,
    )


def judge(*heats, noise=0.02):
    return decide(heats, noise=noise)


def test_lead_beyond_noise_wins_whatever_log_loss():
    race = judge(heat("linear_probe", 0.9), heat("full_finetune", 0.8, log_loss=0.1))
    assert race.winner == "linear_probe"
    assert "0.900" in race.why
    assert "chance" not in race.why


@pytest.mark.parametrize(("loss", "winner"), [(0.6, "linear_probe"), (0.4, "full_finetune")])
def test_within_the_noise_the_lower_log_loss_wins(loss, winner):
    race = judge(heat("linear_probe", 0.9), heat("full_finetune", 0.91, log_loss=loss))
    assert race.winner == winner
    assert "The calibrated log-loss decides" in race.why


@pytest.mark.parametrize("loss", [0.49, 0.51])
def test_draw_by_both_measures_takes_cheaper_one(loss):
    heats = heat("full_finetune", 0.9, log_loss=loss), heat("linear_probe", 0.9)
    for contest in (heats, heats[::-1]):
        race = judge(*contest)
        assert race.winner == "linear_probe"
        assert "a tie as well, 0.500 against" in race.why
        assert "(± 0.020), so the head is used, because it is cheaper" in race.why


@pytest.mark.parametrize("accuracy", [0.3, 0.95])
def test_fine_tuning_worse_than_its_head_decides_nothing(accuracy):
    tuned = heat("full_finetune", accuracy, log_loss=0.1, rates=(1e-3,), valid=False)
    race = judge(heat("early_features", 0.8), tuned)
    assert race.winner == "early_features"
    assert "learning rate 0.001), which says nothing about other rates" in race.why
    assert not is_settled(*race.heats)  # another round is due


@pytest.mark.parametrize("lead", [{"accuracy": 0.95}, {"accuracy": 0.81, "log_loss": 0.1}])
def test_fine_tuning_lead_on_few_images_is_uncertain(lead):
    head = heat("linear_probe", 0.8, n_val=35)
    heats = head, heat("full_finetune", **lead, n_val=35)
    assert is_in_doubt(heats)
    race = judge(*heats)
    assert race.winner == "linear_probe"
    assert "plan.budget.minutes leaves no time for more splits" in race.why
    pooled = [one.model_copy(update={"splits": 3, "n_val": 50}) for one in heats]
    assert not is_in_doubt(pooled)
    assert judge(*heats, *pooled).winner == "full_finetune"


def test_no_other_lead_is_in_doubt():
    many = heat("linear_probe", 0.8), heat("full_finetune", 0.9)
    behind = heat("linear_probe", 0.8, n_val=35), heat("full_finetune", 0.7, n_val=35)
    assert not is_in_doubt(many)
    assert not is_in_doubt(behind)


def test_lead_in_accuracy_has_noise_of_both():
    assert not is_settled(heat("linear_probe", 0.87), heat("full_finetune", 0.9))
    assert is_settled(heat("linear_probe", 0.86), heat("full_finetune", 0.9))


@pytest.mark.parametrize("accuracy", [0.89, 0.9])
def test_more_confident_fine_tuning_does_not_win(accuracy):
    race = judge(heat("linear_probe", 0.9), heat("full_finetune", accuracy, log_loss=0.1))
    assert race.winner == "linear_probe"
    assert (
        "0.500 against 0.100 (± 0.020). As the accuracy is not higher, the head is used" in race.why
    )


def test_only_the_last_round_counts():
    first = [heat("linear_probe", 0.9), heat("full_finetune", 0.8)]
    second = [heat("linear_probe", 0.9), heat("full_finetune", 0.95)]
    assert judge(*first, *second).winner == "full_finetune"


def test_lead_within_noise_is_reported_as_undecided():
    near = heat("linear_probe", 0.90), heat("full_finetune", 0.91)
    far = heat("linear_probe", 0.80), heat("full_finetune", 0.91)
    assert not is_settled(*near)
    assert is_settled(*far)
    assert "may be chance" in judge(*near).why


@pytest.mark.parametrize(
    ("n_train", "sizes"), [(300, [300]), (700, [700]), (800, [500, 800]), (9e5, [500, 1000])]
)
def test_few_images_race_once_and_many_in_rounds(n_train, sizes):
    assert round_sizes(int(n_train)) == sizes


@pytest.mark.parametrize(("rate", "lower"), [(1e-3, 3e-4), (3e-4, 1e-4)])
def test_after_rate_that_failed_comes_next_lower_one(rate, lower):
    assert lower_rate(rate, (3e-4, 1e-3)) == pytest.approx(lower)


def test_training_uses_race_rates_except_on_many_images():
    heats = heat("linear_probe", 0.8), heat("full_finetune", 0.9, rates=(3e-4,))
    race = judge(*heats)
    tried = {n: rates_after_race(race, (1e-4, 1e-3), n) for n in (200, 2000, 2001)}
    assert tried == {200: (3e-4,), 2000: (3e-4,), 2001: (1e-4,)}


def test_reason_names_winner_and_loser_with_their_scores():
    race = judge(heat("linear_probe", 0.8), heat("full_finetune", 0.9), noise=0.0)
    scores = "`full_finetune` reached 0.900 and `linear_probe` 0.800 in accuracy on the 200"
    assert scores in race.why
    race = judge(heat("linear_probe", 0.9, log_loss=0.3), heat("full_finetune", 0.9, log_loss=0.4))
    assert "log-loss decides, 0.300 against 0.400" in race.why


def test_a_lead_of_exactly_the_noise_decides_nothing():
    heats = heat("linear_probe", 0.9, log_loss=0.75), heat("full_finetune", 0.91, log_loss=0.5)
    assert judge(*heats, noise=0.25).winner == "linear_probe"
    assert judge(*heats, noise=0.249).winner == "full_finetune"
