import numpy as np
import pytest

from rootstock.tasks.comparison import Comparison
from rootstock.tasks.single_label.gate import compare

LABELS = np.array([0, 1] * 50)


def model(right):
    """Probabilities of a model that has its first ``right`` answers right."""
    answers = np.where(np.arange(100) < right, LABELS, 1 - LABELS)
    return np.eye(2)[answers]


def meet(champion, challenger, *, metric="accuracy", min_gain=0.0):
    return compare(model(champion), model(challenger), LABELS, metric=metric, min_gain=min_gain)


@pytest.mark.parametrize(
    ("champion", "challenger", "min_gain", "promote"),
    [(80, 90, 0.0, True), (80, 80, 0.0, False), (90, 80, 0.0, False), (80, 85, 0.05, False),
     (80, 86, 0.05, True), (80, 78, -0.05, True)],
)  # fmt: skip
def test_only_a_gain_above_the_gate_promotes(champion, challenger, min_gain, promote):
    assert meet(champion, challenger, min_gain=min_gain).promote is promote


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_every_gate_metric_is_named_in_the_reason(metric):
    found = meet(80, 90, metric=metric)
    assert metric.replace("_", " ") in found.reason
    assert found.reason.startswith("promoted")


def test_mcnemar_looks_at_the_images_that_only_one_gets_right():
    found = meet(80, 90)
    assert (found.only_champion_right, found.only_challenger_right) == (0, 10)
    assert found.p_value == pytest.approx(2 * 0.5**10, abs=1e-6)
    assert "hardly chance" in found.reason


def test_a_small_gain_is_called_possible_chance():
    assert "could well be chance" in meet(80, 82).reason


def test_equal_models_are_said_to_be_equal():
    assert "a gain of +0.0000; it must be better." in meet(80, 80).reason


def test_models_that_cannot_be_compared_leave_the_champion():
    found = Comparison.impossible("other classes", metric="accuracy")
    assert not found.promote
    assert found.reason == "not promoted: other classes"
