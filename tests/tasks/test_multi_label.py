"""Several labels per image: reading, learning, decisions, and measures."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score

from rootstock.data.columns import ColumnRoles, Columns
from rootstock.errors import ConfigError, DataError
from rootstock.heads.linear import HeadProblem
from rootstock.tasks import get_task
from rootstock.tasks.multi_label.answer import LabelsAnswer
from rootstock.tasks.multi_label.calibration import choose_thresholds, fit_slopes
from rootstock.tasks.multi_label.conformal import limit, rank_scores
from rootstock.tasks.multi_label.learning import BinaryLoss, LogisticLoss
from rootstock.tasks.multi_label.measures import Counts, label_precisions, sigmoid
from rootstock.tasks.recognise import find_task
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import AnswerOptions

TASK = get_task("multi_label")


def read(tmp_path, cells, *, name="t.csv", told=None):
    if name.endswith("csv"):
        (tmp_path / name).write_text(cells)
    else:
        pq.write_table(pa.table(cells), tmp_path / name)
    roles = ColumnRoles(told or {})
    found = find_task("auto", tmp_path / name, roles)
    columns = Columns.read(tmp_path / name, roles)
    texts = found.task.read_cells(columns, found.task.find_columns(columns))
    return found, [json.loads(text) for text in texts], columns.notes


@pytest.mark.parametrize("cells", ["car;road", "car|road", '"car,road"', '"[""car"", ""road""]"'])
def test_labels_are_joined_in_any_usual_way(tmp_path, cells):
    found, sets, _ = read(tmp_path, f"path,labels\na,{cells}\nb,\nc,sky\n")
    assert (found.task.name, found.reason) == ("multi_label", "the column labels")
    assert sets == [["car", "road"], [], ["sky"]]


def test_one_separator_is_for_the_whole_column(tmp_path):
    _, sets, _ = read(
        tmp_path, 'path,labels\na,"salt, pepper;oil"\nb,"salt, pepper"\nc, oil ;;oil\n'
    )
    assert sets == [["oil", "salt, pepper"], ["salt, pepper"], ["oil"]]


def test_columns_of_lists_are_read(tmp_path):
    cells = {"path": ["a", "b", "c"], "labels": [["road", "car"], [], None]}
    assert read(tmp_path, cells, name="t.parquet")[1] == [["car", "road"], [], []]


@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("True", "False"), ("1.0", "0.0")])
def test_columns_of_0_and_1_are_recognised(tmp_path, yes, no):
    found, sets, notes = read(
        tmp_path, f"path,cat,dog,cow\na,{yes},{no},{no}\nb,{yes},{yes},{no}\n"
    )
    assert found.task.name == "multi_label"
    assert found.reason == "the columns cat, dog, cow of 0 and 1"
    assert sets == [["cat"], ["cat", "dog"]]
    assert notes == ["no image has the label cow, so it is ignored"]


def test_configured_columns_may_be_among_others(tmp_path):
    text = "path,age,cat,dog\na,7,1,0\nb,9,0,1\n"
    found, sets, _ = read(tmp_path, text, told={"labels": ["cat", "dog"]})
    assert found.task.name == "multi_label"
    assert sets == [["cat"], ["dog"]]


@pytest.mark.parametrize("cell", ["2", "yes", ""])
def test_cell_other_than_0_or_1_is_rejected(tmp_path, cell):
    rows = "".join(f"{number},1,0\n" for number in range(20))
    with pytest.raises(DataError, match=f"row 21: dog is '{cell}', neither 0 nor 1"):
        read(tmp_path, f"path,cat,dog\n{rows}x,1,{cell}\n")


@pytest.mark.parametrize(
    ("sets", "what"),
    [([["a"], ["a"]], "has the labels a: there is nothing"), ([[], []], "has no label: there is")],
)
def test_sets_that_are_all_the_same_are_rejected(tmp_path, sets, what):
    texts = [json.dumps(labels) for labels in sets]
    with pytest.raises(DataError, match=what):
        TASK.check(tmp_path, texts, texts, 3)


def test_odd_labels_are_warned_of():
    texts = [json.dumps(labels) for labels in (["a", "b", "A"], ["a"], ["a"], ["a", "A"])]
    warnings = "\n".join(TASK.warn(texts))
    assert "fewer than 3 images have the labels A, b" in warnings
    assert "every image has the labels a" in warnings
    assert "'A' and 'a' differ only in case" in warnings


def test_stratum_is_rarest_label_with_enough_images():
    texts = ['["common"]'] * 30 + ['["common", "rare"]'] * 12 + ['["common", "once"]'] + ["[]"] * 10
    assert TASK.strata(texts) == ["common"] * 30 + ["rare"] * 12 + ["common"] + ["(no label)"] * 10


def test_unknown_labels_are_named():
    with pytest.raises(DataError, match="has no labels moon"):
        TASK.parse(['["moon"]'], ["sun"])


@pytest.fixture(scope="module")
def separable():
    """Features [300,8] and three labels that follow from them, noisily."""
    random = np.random.default_rng(0)
    features = random.normal(size=(300, 8)).astype(np.float32)
    logits = features @ random.normal(size=(8, 3)) + np.array([0, -2, 1])
    present = (random.random((300, 3)) < sigmoid(logits)).astype(np.float32)
    names = ("a", "b", "c")
    return features, Targets(present, names, np.zeros(300, np.int64))


def test_the_head_is_a_logistic_regression_per_label(separable):
    features, targets = separable
    head = TASK.head().fit(features, targets, l2=0.01)
    problem = HeadProblem.of(features)
    mean, scale = problem.mean, problem.scale
    for k in range(3):
        known = LogisticRegression(C=1 / (0.01 * 300), tol=1e-8, max_iter=1000)
        known.fit((features - mean) / scale, targets.values[:, k])
        assert head.weights[k] * scale == pytest.approx(known.coef_[0], abs=2e-3)


def test_the_derivative_of_the_loss_is_right():
    outputs = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    share = torch.rand(2, 5, dtype=torch.float64)
    loss, residual = LogisticLoss((torch.rand(5, 3) > 0.5).double()).value_and_residual(
        outputs, share
    )
    (slope,) = torch.autograd.grad(loss.sum(), outputs)
    assert torch.allclose(slope, residual)


def test_constant_label_gets_its_share(separable):
    features, targets = separable
    values = targets.values.copy()
    values[:, 1], values[:, 2] = 1, 0
    head = TASK.head().fit(features, Targets(values, targets.names, targets.strata), l2=0.01)
    assert not head.weights[1:].any()
    assert sigmoid(head.outputs(features))[0, 1:] == pytest.approx([1, 0], abs=0.01)


def test_fine_tuning_has_the_same_loss(separable):
    _, targets = separable
    outputs = np.random.default_rng(1).normal(size=(300, 3)).astype(np.float32)
    loss = TASK.loss(targets, weighting="none", label_smoothing=0.0, device=torch.device("cpu"))
    assert isinstance(loss, BinaryLoss)
    total = loss.total(torch.from_numpy(outputs), loss.encode(targets.values)) / 300
    assert float(total) == pytest.approx(TASK.losses(outputs, targets).mean(), rel=1e-5)


def test_measures_are_those_of_scikit_learn():
    random = np.random.default_rng(2)
    scores = random.random((60, 4)).round(1)  # with ties
    present = random.random((60, 4)) < 0.3
    chosen = scores > 0.6
    known = [average_precision_score(present[:, k], scores[:, k]) for k in range(4)]
    assert label_precisions(scores, present)[0] == pytest.approx(known)
    counts = Counts.of(chosen, present)
    assert counts.micro_f1[0] == pytest.approx(f1_score(present, chosen, average="micro"))
    assert counts.macro_f1[0] == pytest.approx(f1_score(present, chosen, average="macro"))


def test_bootstrap_counts_repeated_images():
    random = np.random.default_rng(3)
    scores, present = random.random((30, 1)), random.random((30, 1)) < 0.4
    rows = random.integers(0, 30, 30)
    counts = np.bincount(rows, minlength=30)[None].astype(float)
    drawn = label_precisions(scores, present, counts)[0]
    assert drawn == pytest.approx(label_precisions(scores[rows], present[rows])[0])


def test_calibration_finds_slope_and_offset_of_many_images():
    random = np.random.default_rng(4)
    outputs = random.normal(size=(20_000, 1)) * 2
    present = random.random((20_000, 1)) < sigmoid(0.5 * outputs + 1)
    slopes, offsets = fit_slopes(outputs, present)
    assert slopes[0] == pytest.approx(0.5, abs=0.03)
    assert offsets[0] == pytest.approx(1, abs=0.06)


def test_calibration_of_few_images_stays_near_the_outputs():
    outputs, present = np.array([[3.0], [-3.0]] * 10), np.array([[1], [0]] * 10)
    (slope,), (offset,) = fit_slopes(outputs, present)
    assert 0.5 < slope < 4
    assert abs(offset) < 0.5
    assert fit_slopes(outputs, np.ones_like(present)) == ([1.0], [0.0])


SCORES = np.repeat([[0.9], [0.8], [0.6], [0.4], [0.2]], 5, axis=0)
TRUTH = np.repeat([[1], [0], [1], [1], [0]], 5, axis=0)


@pytest.mark.parametrize(
    ("wish", "threshold"),
    [("f1", 0.3), ("precision=1", 0.85), ("precision=0.7", 0.3), ("recall=0.5", 0.5), ("0.4", 0.4)],
)
def test_thresholds_give_what_is_asked(wish, threshold):
    assert choose_thresholds(SCORES, TRUTH, wish) == pytest.approx([threshold])


def test_a_precision_that_is_never_reached_says_nothing():
    assert choose_thresholds(1 - SCORES, TRUTH, "precision=0.95")[0] > 1


@pytest.mark.parametrize("wish", ["best", "precision", "precision=2", "recall=0", "1.5", "nan", ""])
def test_a_threshold_that_means_nothing_is_rejected(wish):
    with pytest.raises(ConfigError, match=r"task.threshold is"):
        TASK.check_threshold(wish)


def test_tasks_without_thresholds_take_none():
    get_task("single_label").check_threshold("f1")
    with pytest.raises(ConfigError, match="has no thresholds"):
        get_task("single_label").check_threshold("0.5")


def test_possible_labels_hold_what_applies_in_stated_share():
    random = np.random.default_rng(5)
    logits = random.normal(size=(4000, 2))
    present = random.random((4000, 2)) < sigmoid(logits)
    known = rank_scores(sigmoid(logits[:2000]), present[:2000])
    limits = limit(known["with_label"], 0.9)
    new, true = sigmoid(logits[2000:]), present[2000:]
    assert (1 - new <= limits)[true].mean() == pytest.approx(0.9, abs=0.02)
    few = limit(np.array([[0.5], [np.inf]], np.float32), 0.9)
    assert few[0] == np.inf  # one image cannot show nine in ten


def decided(probabilities, thresholds):
    outputs = np.log(probabilities / (1 - probabilities))
    ones = [1.0] * len(thresholds)
    calibration = {"slopes": ones, "offsets": [0.0] * len(thresholds), "thresholds": thresholds}
    assert TASK.find_fault([f"n{k}" for k in range(len(thresholds))], calibration) == ""
    return TASK.decide(outputs, calibration)


def test_answer_has_every_label_with_probability_and_decision():
    decisions = decided(np.array([[0.2, 0.7], [0.1, 0.05]]), [0.5, 0.5])
    first, second = (TASK.answer(one, ["a", "b"], AnswerOptions(1), {}) for one in decisions)
    assert [(s.label, round(s.probability, 3), s.applies) for s in first.scores] == [
        ("b", 0.7, True),
        ("a", 0.2, False),
    ]
    assert (first.text, second.text, second.labels, second.summary) == ("b", "", (), "no label")
    assert first.columns()["probabilities"] == '{"b": 0.7, "a": 0.2}'
    assert LabelsAnswer.from_json(first.to_json()) == first
    tensors = TASK.tensors([first, second], ["a", "b"])
    assert tensors["labels"] == ["b", ""]
    assert tensors["applies"] == [False, True, False, False]
    assert tensors["probabilities"] == pytest.approx([0.2, 0.7, 0.1, 0.05], abs=1e-6)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"slopes": [1.0]}, "slopes must have 2 values"),
        ({"offsets": [0.0, float("nan")]}, "offsets must be"),
        ({"thresholds": [True, 0.5]}, "thresholds must be"),
        ({"thresholds": None}, "thresholds must have 2 values"),
    ],
)
def test_a_calibration_that_cannot_be_is_found(change, fault):
    whole = {"slopes": [1.0, 1.0], "offsets": [0.0, 0.0], "thresholds": [0.5, 0.5]}
    assert fault in TASK.find_fault(["a", "b"], whole | change)


def test_wrong_labels_are_doubted(separable):
    features, targets = separable
    logits = 6 * features[:, :3]
    clean = (logits > 0).astype(np.float32)
    spoilt = clean.copy()
    sure = [int(np.abs(logits[:, k]).argmax()) for k in (0, 1)]
    for k, row in enumerate(sure):
        spoilt[row, k] = 1 - spoilt[row, k]
    doubts = TASK.doubts(features, Targets(spoilt, targets.names, targets.strata), folds=5, seed=0)
    named = {doubt.row: doubt.suggested for doubt in doubts}
    for k, row in enumerate(sure):
        assert named[row] == f"{'with' if clean[row, k] else 'without'} {targets.names[k]}"


def test_the_gate_promotes_what_is_better_beyond_chance():
    random = np.random.default_rng(6)
    present = (random.random((200, 3)) < 0.4).astype(np.float32)
    targets = Targets(present, ("a", "b", "c"), np.zeros(200, np.int64), np.arange(200) // 2)
    good = decided(np.clip(present * 0.6 + 0.4 * random.random((200, 3)), 0.01, 0.99), [0.5] * 3)
    bad = decided(random.random((200, 3)) * 0.98 + 0.01, [0.5] * 3)
    for metric in TASK.gate_metrics:
        better = TASK.compare(bad, good, targets, metric=metric, rule="better", min_gain=0.0)
        assert better.promote
        assert better.gain_interval[0] > 0
        worse = TASK.compare(good, bad, targets, metric=metric, rule="not_worse", min_gain=0.0)
        assert not worse.promote
    assert list(TASK.metrics(good, targets))[0] == "mean_average_precision"
