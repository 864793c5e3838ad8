"""Decisions after a search: head or fine-tuned network, views, penalty, best trial."""

import json

import numpy as np
import pytest

from rootstock.errors import TrainingError
from rootstock.ports.search import Trial
from rootstock.training.penalty import is_past_best, strongest_of_equals
from rootstock.training.selection import choose_tuned, choose_views, describe_winner, is_spoilt
from rootstock.training.trials import FinetunedTrial, HeadTrial, as_records, best_trial

METRIC = "val_loss"


def tuned(loss, **params):
    return FinetunedTrial(params or {"learning_rate": 1e-3}, {METRIC: loss}, None)


def head(loss, tap="last"):
    return HeadTrial({"tap": tap}, {METRIC: loss, "l2": 0.3}, None)


@pytest.mark.parametrize(
    ("option", "safe", "losses", "views"),
    [
        ("one", True, {"one": 1.0}, "one"),
        ("flip", True, {"one": 1.0, "flip": 0.9}, "flip"),
        ("flip", True, {"one": 1.0, "flip": 1.0}, "one"),
        ("flip", False, {"one": 1.0, "flip": 0.1}, "one"),
        ("crops", False, {"one": 1.0, "crops": 0.9}, "crops"),
        ("crops", True, {"one": 1.0, "crops": 1.1}, "one"),
    ],
)
def test_views_are_kept_if_the_loss_falls(option, safe, losses, views):
    chosen, why = choose_views(option, mirror_is_safe=safe, loss=losses.__getitem__)
    assert chosen == views
    if option == "one":
        assert why == "one view, as set by train.views"
    elif option == "flip" and not safe:
        assert "another class" in why
    else:
        cost = {"flip": 2, "crops": 5}[option]
        assert f"{losses[option]:.4f} with `{option}`, which costs {cost} forward" in why
        assert "against 1.0000 with one view" in why


@pytest.mark.parametrize(
    ("scores", "ahead", "spoilt"),
    [((0.9, 0.8), 0.5, True), ((0.9, 0.9), 0.5, True), ((0.8, 0.9), 0.5, False),
     ((0.9, 0.8), 0.0, False), ((0.9, 0.8), -0.5, False)],
)  # fmt: skip
def test_head_is_kept_if_better_and_not_worse(scores, ahead, spoilt):
    losses = np.linspace(0.5, 0.6, 50)
    trials = [Trial({}, {"score": score}, None) for score in scores]
    found = is_spoilt(*trials, score="score", head_losses=losses, tuned_losses=losses + ahead)
    assert found is spoilt


def test_the_winner_is_described_with_what_it_beat():
    single = tuned(0.5)
    line = describe_winner(single, head(0.4), [single], [0.3, 0.2], metric=METRIC)
    assert (
        line == "one fine-tuned trial, calibrated validation loss 0.2000 against the head's 0.3000"
    )
    line = describe_winner(head(0.4), head(0.4), [single], [0.3, 0.35], metric=METRIC)
    assert "the head, which fine-tuning did not improve" in line
    assert "0.3000 against 0.3500" in line
    average = tuned(0.45, average_of=2, with_start=True)
    trials = [single, tuned(0.48)]
    line = describe_winner(average, head(0.4), trials, [0.3, 0.2], metric=METRIC)
    assert line.startswith("the average of 2 fine-tuned trials and the network before fine-tuning")
    assert line.endswith("; uncalibrated 0.4500, the best single trial 0.4800")
    line = describe_winner(head(0.4, "block2"), head(0.4, "block2"), [], [0.3], metric=METRIC)
    assert line == "the head at `block2`, calibrated validation loss 0.3000"
    layered = HeadTrial({"tap": "last", "hidden": 64}, {METRIC: 0.4, "l2": 0.3}, None)
    assert (layered.name, head(0.4).name) == ("last, hidden layer of 64", "last")
    line = describe_winner(layered, layered, [], [0.3], metric=METRIC)
    assert line.startswith("the head at `last` with a hidden layer of 64, calibrated")


def test_best_trial_has_lowest_loss_and_no_error():
    failed = FinetunedTrial({"n": 1}, {METRIC: 0.1}, None, error="boom")
    assert best_trial([failed, tuned(0.5), tuned(0.4)], METRIC).metrics[METRIC] == 0.4
    with pytest.raises(TrainingError, match=r"all 1 trials failed:\n  \{'n': 1\}: boom"):
        best_trial([failed], METRIC)
    assert as_records([failed]) == [{"params": {"n": 1}, "metrics": {METRIC: 0.1}, "error": "boom"}]


def test_early_ended_trial_has_best_epoch_metrics(tmp_path):
    epochs = [{METRIC: loss, "other": n} for n, loss in enumerate((0.5, 0.3, 0.4))]
    (tmp_path / "history.json").write_text(json.dumps({"epochs": epochs}))
    late = Trial({"a": 0.001, "b": "x"}, {METRIC: 0.4}, tmp_path)
    found = FinetunedTrial.of(late, METRIC)
    assert found.metrics == {METRIC: 0.3, "other": 1, "best_epoch": 2.0}
    assert (found.average_of, found.with_start, found.name) == (0, False, "a 0.001, b x")
    for kept in (Trial({}, {METRIC: 0.9, "best_epoch": 1.0}, tmp_path),
                 Trial({}, {METRIC: 0.9}, tmp_path, error="boom"),
                 Trial({}, {METRIC: 0.9}, tmp_path / "none")):  # fmt: skip
        assert FinetunedTrial.of(kept, METRIC).metrics == kept.metrics


def test_a_head_knows_its_tap_penalty_and_path(tmp_path):
    rows = [{"l2": 1.0, METRIC: 0.5}, {"l2": 0.1, METRIC: 0.4}]
    (tmp_path / "path.json").write_text(json.dumps({"path": rows}))
    found = HeadTrial.of(Trial({"tap": "block2"}, {"l2": 0.1}, tmp_path))
    assert (found.tap, found.l2) == ("block2", 0.1)
    assert found.losses_by_penalty(METRIC) == {1.0: 0.5, 0.1: 0.4}


def test_penalty_within_error_of_best_is_as_good():
    spread = np.tile([0.0, 2.0], 50)  # mean 1, standard error a tenth
    rows = [spread, spread + 0.09, spread + 0.11, spread + 2]
    assert strongest_of_equals([0.1, 1.0, 10.0, 100.0], np.stack(rows)) == 1
    assert not is_past_best(np.stack(rows[:2]))
    assert is_past_best(np.stack([rows[0], rows[2]]))
    noisy = np.tile([0.0, 20.0], 5)  # mean 10, an error of 3.2, of which a tenth of 10 counts
    assert is_past_best(np.stack([noisy, noisy + 1.1]))
    assert not is_past_best(np.stack([noisy, noisy + 0.9]))


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ([0.3, -0.2, 0.1, -0.1], 3e-4),  # the higher rate leads within the noise
        ([0.4, 0.3, 0.5, 0.4], 1e-3),  # and beyond it
        ([-0.4, -0.3, -0.5, -0.4], 3e-4),
    ],
)
def test_lower_of_equally_good_rates_is_kept(change, kept):
    trials = [tuned(0.0, learning_rate=rate) for rate in (1e-3, 3e-4)]
    at_high = np.array([0.5, 0.6, 0.7, 0.6])
    chosen = trials[choose_tuned(trials, [at_high, at_high + change])]
    assert chosen.params["learning_rate"] == kept


def test_average_is_kept_if_its_loss_is_lower():
    low, high = (tuned(0.0, learning_rate=rate) for rate in (3e-4, 1e-3))
    mean = tuned(0.0, average_of=2)
    with_start = tuned(0.0, average_of=2, with_start=True)
    trials = [high, mean, with_start, low]
    losses = [np.array(each) for each in ([0.3, 0.7], [0.4, 0.65], [0.6, 0.4], [0.2, 0.84])]
    assert choose_tuned(trials, losses) == 2
    assert choose_tuned(trials, [losses[0], losses[1], losses[2] + 1, losses[3]]) == 3
    assert choose_tuned(trials[1:3], losses[1:3]) == 1  # without any training
