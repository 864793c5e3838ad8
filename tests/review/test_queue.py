import numpy as np
import pytest

from rootstock.data.manifest import ImageRow
from rootstock.review.queue import (
    Item,
    doubt_labels,
    list_disagreements,
    list_requests,
    list_suspects,
    merge_queue,
)
from rootstock.review.record import Suspect
from rootstock.tasks import get_task
from rootstock.tasks.targets import Targets

NAMES = ("ant", "bee")


def row(number, target="ant"):
    sha256 = f"{number:064x}"
    return ImageRow(
        f"{number}.png", sha256, 1, 1, 1, "RGB", "PNG", target, target, "test", number, ""
    )


def item(number, reason="unknown", **more):
    return Item(f"{number:064x}", f"{number}.png", reason, **more)


def test_image_in_two_lists_comes_first():
    merged = merge_queue(
        [item(1, "doubtful label", label="ant"), item(2, "doubtful label", label="bee")],
        [item(3, "model and label differ"), item(2, "model and label differ", suggested="ant")],
    )
    assert [one.path for one in merged] == ["2.png", "1.png", "3.png"]
    assert [one.rank for one in merged] == [1, 2, 3]
    assert merged[0].reasons == ("doubtful label", "model and label differ")
    assert (merged[0].label, merged[0].suggested) == ("bee", "ant")


def test_no_lists_make_an_empty_queue():
    assert merge_queue() == merge_queue([], []) == []


def test_a_doubt_whose_label_was_changed_is_settled():
    suspects = [
        Suspect(path="1.png", label="ant", suggested="bee", confidence=0.9),
        Suspect(path="2.png", label="bee", suggested="ant", confidence=0.8),
        Suspect(path="gone.png", label="bee", suggested="ant", confidence=0.8),
    ]
    (only,) = list_suspects(suspects, [row(1), row(2, "ant")])
    assert (only.path, only.suggested, only.score) == ("1.png", "bee", 0.9)


def test_the_strongest_disagreement_comes_first():
    decisions = np.array([[0.4, 0.6], [0.9, 0.1], [0.05, 0.95]])
    targets = Targets(np.zeros(3, int), NAMES, np.zeros(3, int))
    found = list_disagreements(
        get_task("single_label"), NAMES, [row(0), row(1), row(2)], decisions, targets
    )
    assert [(one.path, one.suggested) for one in found] == [("2.png", "bee"), ("0.png", "bee")]


def test_uncertain_requests_are_queued_once():
    task = get_task("single_label")
    answers = [
        {"sha256": "a" * 64, "label": "ant", "probability": 0.99, "unknown": False},
        {"sha256": "b" * 64, "label": "ant", "probability": 0.40, "unknown": False},
        {"sha256": "c" * 64, "label": "bee", "probability": 0.9, "unknown": True, "novelty": 0.7},
        {"sha256": "b" * 64, "label": "bee", "probability": 0.45, "unknown": None},
    ]
    journal = [one | {"request_id": f"r{n}"} for n, one in enumerate(answers)]
    found = list_requests(task, journal)
    assert [(one.reason, one.origin) for one in found] == [
        ("unknown", "r2"),
        ("low confidence", "r1"),
    ]
    assert found[0].path == f"images/cc/{'c' * 64}"


def test_wrong_answers_by_feedback_come_first():
    answers = [
        {"sha256": "a" * 64, "label": "ant", "probability": 0.99, "unknown": False},
        {"sha256": "c" * 64, "label": "bee", "probability": 0.9, "unknown": True, "novelty": 0.7},
        {"sha256": "d" * 64, "values": "1.5", "task": "regression"},
    ]
    found = list_requests(get_task("single_label"), answers, {"a" * 64: "wasp"})
    assert [(one.reason, one.suggested) for one in found] == [
        ("answered wrongly", "wasp"),
        ("unknown", ""),
    ]


@pytest.mark.parametrize(
    ("name", "decisions", "expected"),
    [
        ("single_label", [[0.5, 0.4, 0.1], [1, 0, 0]], [0.9, 0.0]),
        ("multi_label", [[[0.9, 0.5], [1, 0]], [[1, 0], [1, 0]]], [1.0, 0.0]),
        ("localisation", [[0.5, 0.4, 0.1, 0, 0, 1, 1], [1, 0, 0, 0, 0, 1, 1]], [0.9, 0.0]),
    ],
)
def test_uncertainty_is_0_if_the_model_is_sure(name, decisions, expected):
    found = get_task(name).uncertainty(np.array(decisions, float))
    assert found == pytest.approx(expected)


def test_numbers_have_no_uncertainty():
    assert get_task("regression").uncertainty(np.zeros((2, 1))) is None


@pytest.mark.parametrize(
    ("name", "decisions", "values"),
    [
        ("multi_label", [[[0.9, 0.1], [1, 0]], [[0.9, 0.1], [1, 0]]], [[1, 0], [0, 0]]),
        ("regression", [[3.0], [3.0]], [[3.0], [9.0]]),
        ("localisation", [[0.9, 0.1, 0, 0, 1, 1]] * 2, [[0, 0, 0, 1, 1], [0, 0, 0, 0.5, 1]]),
    ],
)
def test_each_task_sees_label_that_model_contradicts(name, decisions, values):
    values = np.array(values, np.float32)
    targets = Targets(values, NAMES, np.zeros(2, int))
    agreeing, against = get_task(name).contradiction(np.array(decisions, float), targets)
    assert agreeing == pytest.approx(0.0, abs=1e-9)
    assert against > 0.2


def test_wrong_labels_are_first_in_order_of_doubts():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    features = np.eye(2)[labels] * 3 + random.normal(size=(60, 2)) * 0.3
    wrong = labels.copy()
    wrong[[4, 40, 50]] = 1 - wrong[[4, 40, 50]]
    targets = Targets(wrong, NAMES, wrong)
    doubts = doubt_labels(get_task("single_label"), features, targets, folds=5, seed=0)
    assert set(np.argsort(-doubts)[:3]) == {4, 40, 50}
