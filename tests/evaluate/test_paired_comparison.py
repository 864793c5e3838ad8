import numpy as np
import pytest

from rootstock.evaluate.paired_comparison import (
    Contender,
    PairedComparison,
    render_comparison,
)

LABELS = np.array(["cat", "dog"] * 50, dtype=object)
OTHER = {"cat": "dog", "dog": "cat"}


def contender(name, right):
    """Return a side whose answers on the images ``right`` are right."""
    flipped = np.array([OTHER[label] for label in LABELS], dtype=object)
    return Contender(name, np.where(np.isin(np.arange(100), right), LABELS, flipped), 3.0)


def compare(first, second):
    return PairedComparison(
        contender("version 1", first),
        contender("version 2", second),
        labels=LABELS,
        paths=[f"{number}.png" for number in range(100)],
    )


def test_mcnemar_uses_images_right_in_one_model_only():
    comparison = compare(range(80), range(90))
    assert comparison.table == (80, 10, 0, 10)
    assert comparison.p_value == pytest.approx(2 * 0.5**10)
    assert comparison.gain == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (range(60, 100), "version 2 is worse"),
        (range(95), "version 2 is better"),
        (range(81), "cannot show which model is better"),
    ],
)
def test_page_begins_with_the_verdict(second, words):
    assert words in render_comparison(compare(range(80), second), pictures=[]).splitlines()[2]


def test_lost_images_come_before_won_ones():
    comparison = compare([0, 1, 2], [1, 2, 3])
    assert [row[0] for row in comparison.differing()] == ["0.png", "3.png"]


def test_classes_are_ordered_by_change():
    comparison = compare(range(0, 100, 2), range(0, 50, 2))
    assert [(c.label, c.before, c.after) for c in comparison.classes] == [
        ("cat", 1.0, 0.5),
        ("dog", 0.0, 0.0),
    ]
    page = render_comparison(comparison, pictures=["plots/a.png"])
    assert "| cat | 50 | 100.0% | 50.0% | -50.0 |" in page
    assert "Unchanged classes: 1." in page
    assert "![](plots/a.png)" in page


def test_equal_models_differ_nowhere():
    page = render_comparison(compare(range(80), range(80)), pictures=[])
    assert "Every class has the same share of right answers in both models." in page
    assert "None." in page
