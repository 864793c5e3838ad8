import pytest

from rootstock.plan.race_rules import decide, is_settled, race_rates, round_sizes
from rootstock.plan.transfer_plan import Heat


def heat(strategy, accuracy, *, log_loss=0.5, n_val=200):
    return Heat(
        strategy=strategy,
        n_train=500,
        n_val=n_val,
        epochs=5,
        accuracy=accuracy,
        log_loss=log_loss,
    )


def judge(*heats, noise=0.02, similar=True):
    return decide(heats, noise=noise, similar=similar)


def test_a_lead_beyond_the_noise_wins_whatever_the_log_loss():
    race = judge(heat("linear_probe", 0.9), heat("full_finetune", 0.8, log_loss=0.1))
    assert race.winner == "linear_probe"
    assert "0.900" in race.why
    assert "chance" not in race.why


@pytest.mark.parametrize(("loss", "winner"), [(0.6, "linear_probe"), (0.4, "full_finetune")])
def test_within_the_noise_the_lower_log_loss_wins(loss, winner):
    race = judge(heat("linear_probe", 0.91), heat("full_finetune", 0.9, log_loss=loss))
    assert race.winner == winner
    assert "the calibrated log-loss decides" in race.why


@pytest.mark.parametrize(
    ("similar", "winner", "words"),
    [(True, "linear_probe", "so the head is kept"), (False, "full_finetune", "are not similar")],
)
@pytest.mark.parametrize("loss", [0.49, 0.51])
def test_a_draw_by_both_measures_is_left_to_the_similarity(similar, winner, words, loss):
    heats = heat("full_finetune", 0.9, log_loss=loss), heat("linear_probe", 0.9)
    for contest in (heats, heats[::-1]):
        race = judge(*contest, similar=similar)
        assert race.winner == winner
        assert words in race.why


def test_only_the_last_round_counts():
    first = [heat("linear_probe", 0.9), heat("full_finetune", 0.8)]
    second = [heat("linear_probe", 0.9), heat("full_finetune", 0.95)]
    assert judge(*first, *second).winner == "full_finetune"


def test_a_lead_within_the_noise_is_not_settled_and_is_said():
    near = heat("linear_probe", 0.90), heat("full_finetune", 0.91)
    far = heat("linear_probe", 0.80), heat("full_finetune", 0.91)
    assert not is_settled(*near)
    assert is_settled(*far)
    assert "within chance" in judge(*near).why


@pytest.mark.parametrize(
    ("n_train", "sizes"), [(300, [300]), (700, [700]), (800, [500, 800]), (9e5, [500, 1000])]
)
def test_few_images_are_raced_whole_and_more_in_rounds(n_train, sizes):
    assert round_sizes(int(n_train)) == sizes


@pytest.mark.parametrize(
    ("n_train", "rates"), [(200, (3e-4, 1e-3)), (500, (1e-3,)), (5000, (3e-4,))]
)
def test_the_fewer_the_images_the_more_and_higher_the_rates(n_train, rates):
    assert race_rates("probe_then_finetune", (3e-4, 1e-3), n_train) == rates


def test_similar_data_are_tuned_gently():
    assert race_rates("partial_finetune", (3e-4, 1e-3), 500) == (3e-4,)


def test_a_head_has_no_rates_however_many_images():
    assert [race_rates("linear_probe", (), n_train) for n_train in (100, 500, 5000)] == [()] * 3


def test_the_reason_names_winner_and_loser_with_their_scores():
    race = judge(heat("linear_probe", 0.8), heat("full_finetune", 0.9), noise=0.0)
    assert "`full_finetune` reached 0.900 and `linear_probe` 0.800 of the 200" in race.why
    race = judge(heat("linear_probe", 0.9, log_loss=0.3), heat("full_finetune", 0.9, log_loss=0.4))
    assert "log-loss decides, 0.300 against 0.400" in race.why


def test_a_lead_of_exactly_the_noise_decides_nothing():
    heats = heat("linear_probe", 0.9, log_loss=0.75), heat("full_finetune", 0.9, log_loss=0.5)
    assert judge(*heats, noise=0.25).winner == "linear_probe"  # similar images keep the head
    assert judge(*heats, noise=0.249).winner == "full_finetune"


def test_rates_change_at_three_hundred_and_at_two_thousand_images():
    rates = (3e-4, 1e-3)
    tried = {n: race_rates("full_finetune", rates, n) for n in (300, 301, 2000, 2001)}
    assert tried == {300: rates, 301: (1e-3,), 2000: (1e-3,), 2001: (3e-4,)}
