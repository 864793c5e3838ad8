import numpy as np
import pytest

from rootstock.tasks.comparison import Comparison
from rootstock.tasks.metric_words import name_metric
from rootstock.tasks.single_label.gate import compare

LABELS = np.array([0, 1] * 50)


def model(right):
    """Return probabilities of a model whose first ``right`` answers are right."""
    answers = np.where(np.arange(100) < right, LABELS, 1 - LABELS)
    return np.eye(2)[answers]


def meet(champion, challenger, *, metric="accuracy", rule="better", min_gain=0.0):
    pair = (model(champion), model(challenger))
    return compare(*pair, LABELS, metric=metric, rule=rule, min_gain=min_gain)


@pytest.mark.parametrize(
    ("champion", "challenger", "better", "not_worse", "higher"),
    [
        (80, 90, True, True, True),
        (80, 81, False, True, True),
        (80, 80, False, True, False),
        (80, 79, False, True, False),
        (90, 80, False, False, False),
    ],
)
def test_each_rule_promotes_what_it_says(champion, challenger, better, not_worse, higher):
    expected = {"better": better, "not_worse": not_worse, "higher": higher}
    for metric in ("accuracy", "balanced_accuracy", "macro_f1"):
        for rule, promote in expected.items():
            found = meet(champion, challenger, metric=metric, rule=rule)
            assert found.promote is promote, (metric, rule, found.reason)


@pytest.mark.parametrize(
    ("champion", "challenger", "rule", "min_gain", "promote"),
    [
        (80, 90, "better", 0.02, True),
        (80, 90, "better", 0.08, False),
        (50, 50, "better", -0.2, True),
        (80, 85, "higher", 0.05, False),
        (80, 86, "higher", 0.05, True),
        (80, 78, "higher", -0.05, True),
        (80, 81, "not_worse", 0.2, False),
    ],
)
def test_rule_uses_the_required_gain(champion, challenger, rule, min_gain, promote):
    assert meet(champion, challenger, rule=rule, min_gain=min_gain).promote is promote


def test_one_image_more_of_36_replaces_no_champion():
    labels = np.array([0, 1] * 18)
    wrong = [np.where(np.arange(36) < right, labels, 1 - labels) for right in (34, 35)]
    found = compare(
        *(np.eye(2)[one] for one in wrong), labels, metric="accuracy", rule="better", min_gain=0.0
    )
    assert not found.promote
    assert found.p_value == 1.0
    assert "do not show whether it is better (rule `better`)" in found.reason


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_reason_names_gate_metric_and_interval(metric):
    found = meet(80, 90, metric=metric)
    assert name_metric(metric) in found.reason
    assert found.reason.startswith("promoted")
    low, high = found.gain_interval
    assert f"(95 % interval {low:+.4f} to {high:+.4f})" in found.reason
    assert 0 < low < found.challenger - found.champion < high


def test_mcnemar_uses_images_right_in_one_model():
    found = meet(80, 90)
    assert (found.only_champion_right, found.only_challenger_right) == (0, 10)
    assert found.p_value == pytest.approx(2 * 0.5**10, abs=1e-6)
    assert "better, beyond chance" in found.reason


def test_model_that_is_worse_is_said_to_be():
    assert "it is worse, beyond chance" in meet(90, 80).reason


def test_models_that_cannot_be_compared_leave_the_champion():
    found = Comparison.impossible("other classes", metric="accuracy")
    assert not found.promote
    assert found.reason == "not promoted: other classes"
