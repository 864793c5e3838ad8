"""A classifier's decisions, measures, and texts, checked by hand."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from rootstock.errors import DataError
from rootstock.tasks.answer import Answer, AnswerError
from rootstock.tasks.comparison import Comparison, decide_gate
from rootstock.tasks.single_label.answer import Candidate, ClassAnswer
from rootstock.tasks.single_label.evaluation import Classified
from rootstock.tasks.single_label.neighbours import bayes_accuracy_bound, leave_one_out_accuracy
from rootstock.tasks.single_label.task import SingleLabel
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import AnswerOptions, Evidence
from tests.tasks.classes import classes

TASK = SingleLabel()
NAMES = ("ants", "bees", "wasps")
ROOT = Path("photos")

DECISIONS = np.array(
    [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]]
)
LABELS = np.array([0, 1, 1, 0, 2])
"""Of five images the second and the fourth are mistakes."""


def evidence():
    return Evidence(DECISIONS, Targets(LABELS, NAMES, LABELS), [f"{n}.jpg" for n in range(5)])


def test_classes_are_sorted_and_numbered():
    assert TASK.read_names(["bees", "ants", "bees"]) == ("ants", "bees")
    assert TASK.parse(["bees", "ants", "wasps"], NAMES).tolist() == [1, 0, 2]
    with pytest.raises(DataError, match="has no classes moths, owls") as caught:
        TASK.parse(["owls", "ants", "moths"], NAMES)
    assert caught.value.hint == "its classes are ants, bees, wasps"


@pytest.mark.parametrize(
    ("texts", "listed", "message"),
    [
        (["a"] * 9, ["a"] * 9, "one class, a"),
        ([], ["a", "b"], "none of the files in photos is a usable image"),
        (["a"] * 9 + ["b"] * 2, ["a", "b"], r"fewer than 3 usable images: b \(2\)"),
        (["a"] * 9, ["a", "b"], r"fewer than 3 usable images: b \(0\)"),
    ],
)
def test_classes_that_cannot_be_learnt_are_rejected(texts, listed, message):
    with pytest.raises(DataError, match=message):
        TASK.check(ROOT, texts, listed, 3)
    TASK.check(ROOT, ["a"] * 3 + ["b"] * 3, ["a", "b"], 3)


def test_values_instead_of_classes_are_listed_briefly():
    values = [f"{number / 7:.2f}" for number in range(40)]
    with pytest.raises(DataError, match=r"0\.00 \(1\).* and 30 more") as caught:
        TASK.check(ROOT, values, values, 3)
    assert "are these numbers" in caught.value.hint


def test_classes_in_other_cases_are_one_warning():
    (warning,) = TASK.warn(["ANT", "ant", "Ant", "bee", "BEE", "cat"])
    assert "'ANT' and 'Ant' and 'ant', 'BEE' and 'bee' differ only in case" in warning


def test_classes_that_list_others_are_warned_of():
    (warning,) = TASK.warn(["ant", "ant;dog", "bee", "rock, paper", "a|b"])
    assert warning.startswith(
        "1 of 5 classes look like several labels of one image, such as ant;dog"
    )
    assert not TASK.warn(["rock, paper", "stone, scissors"])


def test_class_missing_in_a_split_is_reported():
    strata = ["a", "a", "b", "b"]
    splits = ["train", "val", "train", "train"]
    assert TASK.check_splits(ROOT, strata, splits) == [
        "no image of b is in the split val, so its accuracy does not cover them"
    ]
    with pytest.raises(DataError, match="photos has no training image of b"):
        TASK.check_splits(ROOT, strata, ["train", "val", "val", "val"])


def test_answer_has_top_classes_and_prediction_set():
    scores = {"scores": np.linspace(0, 1, 100)}
    answer = TASK.answer(DECISIONS[3], NAMES, AnswerOptions(top_k=2), scores)
    assert answer.top == (Candidate("bees", 0.7), Candidate("ants", 0.2))
    assert answer.labels is None
    answer = TASK.answer(DECISIONS[3], NAMES, AnswerOptions(top_k=5, coverage=0.85), scores)
    assert (len(answer.top), answer.labels) == (3, ("bees", "ants"))
    assert TASK.decided(DECISIONS, NAMES) == ["ants", "ants", "bees", "bees", "wasps"]


def test_answer_says_same_to_people_tables_and_programs():
    answer = ClassAnswer(
        filename="a.jpg",
        unknown=False,
        novelty=0.5,
        top=(Candidate("ants", 0.75), Candidate("bees", 0.25)),
        labels=("ants",),
    )
    assert (answer.label, answer.text, answer.categories) == ("ants", "ants", ("ants",))
    assert answer.probability == 0.75
    assert answer.summary == "ants 0.750  bees 0.250"
    columns = {"label": "ants", "probability": 0.75, "unknown": False}
    assert answer.columns() == columns | {"labels": "ants"}
    entry = answer.to_json()
    assert entry["top"][1] == {"label": "bees", "probability": 0.25}
    assert "error" not in entry
    assert ClassAnswer.from_json(entry | {"new": 1}) == answer


def test_answer_that_failed_says_why_and_nothing_else():
    failed = ClassAnswer(filename="a.jpg", error=AnswerError("it ends early", reason="truncated"))
    assert (failed.label, failed.probability, failed.summary) == ("", 0.0, "")
    entry = failed.to_json()
    assert entry == {
        "filename": "a.jpg",
        "error": {"detail": "it ends early", "reason": "truncated"},
    }
    assert ClassAnswer.from_json(entry) == failed
    assert str(failed.error) == "it ends early"
    assert Answer(filename="a").categories == ()


def test_tensors_have_probabilities_in_order_of_classes():
    answers = [TASK.answer(row, NAMES, AnswerOptions(top_k=3), {}) for row in DECISIONS[2:4]]
    tensors = TASK.tensors(answers, NAMES)
    assert tensors["label"] == ["bees", "bees"]
    assert tensors["probabilities"] == DECISIONS[2:4].ravel().tolist()
    shapes = {spec.name: spec.shape(2) for spec in TASK.tensor_specs(NAMES)}
    assert shapes == {"label": [2], "probabilities": [2, 3]}


def test_validation_measures_are_those_of_plain_outputs():
    found = TASK.validate(np.log(DECISIONS), classes(LABELS))
    assert found["val_accuracy"] == 0.6
    assert found["val_balanced_accuracy"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    losses = -np.log([0.7, 0.3, 0.8, 0.2, 0.4])
    assert found["val_log_loss"] == pytest.approx(losses.mean())
    assert TASK.losses(np.log(DECISIONS), classes(LABELS)) == pytest.approx(losses)


def test_temperature_divides_outputs_wherever_they_are_used():
    outputs = 3 * np.log(DECISIONS)
    calibration = {"temperature": 3.0}
    assert TASK.decide(outputs, calibration) == pytest.approx(DECISIONS)
    losses = -np.log([0.7, 0.3, 0.8, 0.2, 0.4])
    assert TASK.losses(outputs, classes(LABELS), calibration) == pytest.approx(losses)
    found = TASK.describe_calibration(outputs, classes(LABELS), calibration)
    assert found["val_log_loss"] == pytest.approx(losses.mean())
    assert found["val_ece"] != found["val_ece_before"]
    assert (found["temperature"], found["val_accuracy"]) == (3.0, 0.6)


def test_calibration_takes_the_temperature_that_fits():
    random = np.random.default_rng(0)
    outputs = random.normal(size=(3000, 3))
    shares = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    labels = np.array([random.choice(3, p=row) for row in shares])
    assert TASK.calibrate(5 * outputs, classes(labels))["temperature"] == pytest.approx(5, rel=0.2)


@pytest.mark.parametrize(
    ("names", "calibration", "fault"),
    [
        (NAMES, {"temperature": 1.5}, ""),
        (("ants", "bees"), {"temperature": 2}, ""),
        (("ants",), {"temperature": 1.5}, "at least two classes, but this one has 1"),
        (("ants", "bees", "ants"), {"temperature": 1.5}, "'ants' is listed more than once"),
        *(
            (NAMES, {"temperature": value}, f"from 0.001 to 1000, but is {value!r}")
            for value in (0, -1, 1e-320, math.inf, math.nan, 10**400, True, "1")
        ),
        (NAMES, {}, "but is None"),
    ],
)
def test_a_bundle_that_makes_no_sense_is_found(names, calibration, fault):
    found = TASK.find_fault(names, calibration)
    assert (fault in found) if fault else found == ""


def test_what_is_remembered_are_scores_and_shares():
    memory = TASK.remember(DECISIONS, classes(LABELS))
    assert memory["scores"].tolist() == pytest.approx([0.2, 0.3, 0.6, 0.7, 0.8])
    assert memory["shares"].tolist() == pytest.approx([0.4, 0.4, 0.2])


def test_sets_are_counted_with_what_they_hold():
    answers = [ClassAnswer(labels=labels) for labels in (("ants",), ("ants",), ("ants", "bees"))]
    found = TASK.check_promises(answers, Targets(np.array([0, 1, 1]), NAMES, np.zeros(3)))
    assert found == {"coverage_95": pytest.approx(2 / 3), "set_size_95": pytest.approx(4 / 3)}


def test_mistakes_and_tables_name_path_classes_and_probability():
    images = Classified.of(evidence())
    assert images.mistakes() == [("3.jpg", "ants", "bees", 0.7), ("1.jpg", "bees", "ants", 0.6)]
    assert TASK.prediction_rows(evidence())[:3] == [
        ("path", "actual", "predicted", "probability"),
        ("0.jpg", "ants", "ants", "0.700000"),
        ("1.jpg", "bees", "ants", "0.600000"),
    ]
    assert images.confusion.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert images.class_rows()[1:] == [
        ("ants", 0.5, 0.5, 0.5, 2),
        ("bees", 0.5, 0.5, 0.5, 2),
        ("wasps", 1.0, 1.0, 1.0, 1),
    ]


def test_the_report_holds_numbers_classes_and_mistakes(tmp_path):
    metrics = TASK.metrics(DECISIONS, evidence().targets) | {"n_test": 5}
    assert (metrics["accuracy"], metrics["macro_f1"]) == (0.6, pytest.approx(2 / 3))
    assert metrics["accuracy_low"] < 0.6 < metrics["accuracy_high"]
    report = TASK.report(evidence(), metrics, tmp_path)
    lines = report.text.splitlines()
    assert any(line.startswith("**60.0% of 5 test images are right**") for line in lines)
    assert "5 test images are few" in report.text
    assert "| ants | 0.500 | 0.500 | 0.500 | 2 |" in lines
    assert "| balanced accuracy | 66.7% |" in lines
    assert "| 3.jpg | ants | bees | 0.700 |" in lines
    assert "only roughly calibrated" in report.text
    assert [picture.name for picture in report.pictures] == [
        "confusion.png",
        "reliability.png",
        "mistakes.png",
    ]
    assert "are few" not in TASK.report(evidence(), metrics | {"n_test": 200}, tmp_path).text
    good = metrics | {"ece": 0.049}
    assert "the model is well calibrated" in TASK.report(evidence(), good, tmp_path).text
    right = Evidence(DECISIONS[[0, 2]], classes([0, 1], 3), ["0.jpg", "2.jpg"])
    assert (
        "There are none: every test image is right." in TASK.report(right, metrics, tmp_path).text
    )


def test_the_card_names_quality_and_the_weakest_classes():
    metrics = TASK.metrics(DECISIONS, evidence().targets) | {"n_test": 5}
    rows = [
        {"class": name, "recall": str(recall), "images": str(images)}
        for name, recall, images in [
            ("ants", 1.0, 20), ("bees", 0.5, 20), ("cats", 0.5, 19), ("dogs", 0.9, 30),
            ("eels", 0.0, 0), ("foxes", 0.95, 40),
        ]
    ]  # fmt: skip
    lines = TASK.describe_quality(metrics, rows, 0.0)
    assert "**60.0% of 5 test images are right**" in lines[0]
    assert "has no reference" in lines[2]
    table = [line for line in lines if re.match(r"\| [a-z]+ \| ", line)][1:]
    assert [line.split(" | ")[0] for line in table] == [
        "| eels", "| bees", "| cats", "| dogs", "| foxes"
    ]  # fmt: skip
    assert table[0] == "| eels | not measured | | 0 |"
    assert table[1].endswith("| 20 |")
    assert table[2].endswith("| 19, few |")
    promises = {"coverage_95": 0.96, "set_size_95": 1.25, "unknown_share": 0.03}
    line = TASK.describe_quality(metrics | promises, rows, 0.02)[2]
    assert all(part in line for part in ("flagged 3.0%", "share is 2.0%", "96.0%", "with 1.2"))
    assert "without a warning" in TASK.describe_limits(0.0)[0]
    assert "flagged `unknown`" in TASK.describe_limits(0.02)[0]
    assert TASK.describe(NAMES).startswith("Classifies an image as one of 3 classes")


@pytest.mark.parametrize("weighting", ["none", "balanced", "logit_adjusted"])
def test_loss_of_fine_tuning_is_weighted_log_loss(weighting):
    targets = classes([0, 0, 0, 1], 3)
    loss = TASK.loss(targets, weighting=weighting, label_smoothing=0.0, device=torch.device("cpu"))
    outputs = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]))
    encoded = loss.encode(np.array([0, 1]))
    assert encoded.tolist() == [[1, 0, 0], [0, 1, 0]]
    shares = np.array([0.5, 0.6])
    if weighting == "logit_adjusted":
        # Frequencies 3 : 1; the class without images keeps its place between the two
        raised = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]) * [3**0.5, 3**-0.5, 1.0]
        shares = np.array([raised[0, 0], raised[1, 1]]) / raised.sum(axis=1)
    # A class without images counts as if it had one
    weights = np.array([5 / 9, 5 / 3]) if weighting == "balanced" else np.ones(2)
    assert float(loss.total(outputs, encoded)) == pytest.approx(-(weights * np.log(shares)).sum())
    assert float(loss.weight(encoded)) == pytest.approx(weights.sum())


def test_smoothing_is_share_of_target_for_every_class():
    loss = TASK.loss(
        classes([0, 1, 2]), weighting="none", label_smoothing=0.3, device=torch.device("cpu")
    )
    outputs = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))
    expected = -(0.8 * np.log(0.5) + 0.1 * np.log(0.3) + 0.1 * np.log(0.2))
    assert float(loss.total(outputs, loss.encode(np.array([0])))) == pytest.approx(expected)


def test_no_texts_are_no_class_numbers():
    assert TASK.parse([], NAMES).dtype == np.int64


def test_score_bound_uses_the_nearest_neighbour():
    random = np.random.default_rng(0)
    labels = np.arange(90) % 3
    features = np.eye(6)[labels] + 0.6 * random.normal(size=(90, 6))
    bounds = {
        k: bayes_accuracy_bound(leave_one_out_accuracy(features, labels, neighbours=k), 3)
        for k in (1, 5)
    }
    assert TASK.score_bound(features, classes(labels)) == bounds[1]
    assert bounds[1] != bounds[5]
    expected = leave_one_out_accuracy(features, labels, neighbours=5)
    assert TASK.neighbour_score(features, classes(labels)) == expected


def test_a_comparison_that_is_impossible_leaves_the_champion():
    found = Comparison.impossible("other classes", metric="accuracy").to_dict()
    assert found == {
        "metric": "accuracy",
        "champion": None,
        "challenger": None,
        "n": 0,
        "only_champion_right": 0,
        "only_challenger_right": 0,
        "p_value": None,
        "promote": False,
        "reason": "not promoted: other classes",
        "gain_interval": None,
    }


def test_an_answer_of_no_task_says_nothing():
    for say in (lambda: Answer().text, lambda: Answer().columns()):
        with pytest.raises(NotImplementedError):
            say()


def test_class_never_predicted_has_share_zero():
    memory = TASK.remember(DECISIONS[:4], classes(LABELS[:4], 3))
    assert memory["shares"].tolist() == [0.5, 0.5, 0.0]


def test_error_answer_omits_unknown_fields():
    assert AnswerError("too large", reason="size").to_json() == {
        "detail": "too large",
        "reason": "size",
    }


def test_gain_with_touching_interval_is_uncertain():
    options = {"rule": "better", "min_gain": 0.0, "count": 50}
    for low, promote in ((0.0, False), (0.0001, True)):
        found, reason = decide_gate("accuracy", 0.8, 0.9, interval=(low, 0.2), **options)
        assert found is promote
        assert ("do not show" in reason) is not promote
