import pytest

from rootstock.plan.plan import Heat
from rootstock.plan.race import decide, is_settled, round_sizes


def heat(strategy, accuracy, *, log_loss=0.5, n_val=200):
    return Heat(
        strategy=strategy,
        n_train=500,
        n_val=n_val,
        epochs=5,
        accuracy=accuracy,
        log_loss=log_loss,
    )


@pytest.mark.parametrize(("tuned", "winner"), [(0.9, "linear_probe"), (0.91, "full_finetune")])
def test_the_higher_accuracy_wins_and_a_draw_goes_to_the_head(tuned, winner):
    race = decide([heat("linear_probe", 0.9), heat("full_finetune", tuned, log_loss=0.1)])
    assert race.winner == winner
    assert "0.900" in race.why


def test_a_draw_of_two_tunings_goes_to_the_lower_loss():
    race = decide([heat("partial_finetune", 0.9), heat("full_finetune", 0.9, log_loss=0.4)])
    assert race.winner == "full_finetune"


def test_only_the_last_round_counts():
    first = [heat("linear_probe", 0.9), heat("full_finetune", 0.8)]
    second = [heat("linear_probe", 0.9), heat("full_finetune", 0.95)]
    assert decide(first + second).winner == "full_finetune"


def test_a_lead_within_the_noise_is_not_settled_and_is_said():
    near = heat("linear_probe", 0.90), heat("full_finetune", 0.91)
    far = heat("linear_probe", 0.80), heat("full_finetune", 0.91)
    assert not is_settled(*near)
    assert is_settled(*far)
    assert "within chance" in decide(near).why


@pytest.mark.parametrize(
    ("n_train", "sizes"), [(300, [300]), (700, [500, 700]), (9e5, [500, 1000])]
)
def test_rounds_double_up_to_all_images(n_train, sizes):
    assert round_sizes(int(n_train)) == sizes
