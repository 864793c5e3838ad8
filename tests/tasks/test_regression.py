"""Numbers as targets: reading, learning, answers, and measures."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from rootstock.data.columns import ColumnRoles, Columns
from rootstock.errors import DataError
from rootstock.heads.linear import HeadProblem
from rootstock.tasks import get_task
from rootstock.tasks.recognise import find_task
from rootstock.tasks.regression.answer import NumbersAnswer
from rootstock.tasks.regression.evaluation import Numbered
from rootstock.tasks.regression.intervals import interval_width
from rootstock.tasks.regression.learning import PENALTY_SCALE, SquaredLoss
from rootstock.tasks.regression.measures import explained_share, rank_correlation, standardise
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import AnswerOptions

TASK = get_task("regression")


def read(tmp_path, cells, *, name="auto", told=None, aside=()):
    (tmp_path / "t.csv").write_text(cells)
    roles = ColumnRoles(told or {}, aside)
    found = find_task(name, tmp_path / "t.csv", roles)
    columns = Columns.read(tmp_path / "t.csv", roles)
    texts = found.task.read_cells(columns, found.task.find_columns(columns))
    names = found.task.read_names(texts)
    return found, names, found.task.parse(texts, names).tolist()


@pytest.mark.parametrize(
    ("text", "told", "names", "values"),
    [
        ("path,target\na,17\nb,-2.5e1\n", {}, ("target",), [[17], [-25]]),
        ("path,target,site\na,17,n\n", {}, ("target",), [[17]]),
        ("path,x,y\na,1,2\nb,3,4\n", {}, ("x", "y"), [[1, 2], [3, 4]]),
        ("path,age,weight\na,7,5\n", {"target": "weight"}, ("weight",), [[5]]),
        ("path,s,y,x\na,t,1,2\n", {"target": ("x", "y")}, ("x", "y"), [[2, 1]]),
    ],
)
def test_columns_of_numbers_are_targets(tmp_path, text, told, names, values):
    found, *rest = read(tmp_path, text, told=told)
    assert found.task.name == "regression"
    assert found.reason == f"the numbers in {', '.join(names)}"
    assert rest == [names, values]


def test_columns_of_groups_and_times_are_no_targets(tmp_path):
    _, names, _ = read(tmp_path, "path,patient,when,mass\na,1,2026,5\n", aside=["patient", "when"])
    assert names == ("mass",)


def test_numbers_next_to_words_need_a_named_task(tmp_path):
    text = "path,remark,mass\na,nice,5\n"
    with pytest.raises(DataError, match="no columns with labels"):
        read(tmp_path, text)
    assert read(tmp_path, text, name="regression")[1:] == (("mass",), [[5]])


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ("", "an empty cell"),
        ("nan", "not a finite number"),
        ("-inf", "not a finite number"),
        ("three", "not a number"),
        ('"3,5"', "not a number"),
        ("1e300", "larger than a model can learn"),
    ],
)
def test_non_finite_number_is_rejected_with_its_row(tmp_path, cell, fault):
    with pytest.raises(DataError, match=f"row 2: target is '.*', {fault}"):
        read(tmp_path, f"path,target\na,1\nb,{cell}\n")


def test_one_number_for_all_images_is_rejected(tmp_path):
    texts = ['{"x": "1", "y": "2"}', '{"x": "3", "y": "2"}']
    with pytest.raises(DataError, match="y is 2 for each usable image"):
        TASK.check(tmp_path, texts, texts, 3)


def test_numbers_of_other_names_are_rejected():
    with pytest.raises(DataError, match="predicts the numbers mass, but the data has target"):
        TASK.parse(["3"], ["mass"])


def test_strata_are_quantile_bins():
    texts = [str(number) for number in range(100)]
    strata = TASK.strata(texts)
    assert strata[0] == "0 to 19"
    assert sorted(map(strata.count, set(strata))) == [20] * 5
    assert len(set(TASK.strata(["0"] * 90 + ["1"] * 10))) <= 2
    assert set(TASK.strata(["1", "2"])) == {"1 to 2"}


@pytest.fixture(scope="module")
def linear():
    random = np.random.default_rng(0)
    features = random.normal(size=(200, 6)).astype(np.float32)
    values = features @ random.normal(size=(6, 2)) + random.normal(size=(200, 2))
    values = (values * [1000, 0.01] + [5000, 1]).astype(np.float32)
    targets = Targets(values, ("grams", "litres"), np.zeros(200, np.int64))
    return features, Targets(*_fields(targets), TASK.measure_units(values))


def _fields(targets):
    return targets.values, targets.names, targets.strata, targets.groups


def test_head_is_ridge_regression_in_units_of_targets(linear):
    features, targets = linear
    head = TASK.head().fit(features, targets, l2=0.003)
    problem = HeadProblem.of(features)
    standard = (features - problem.mean) / problem.scale
    known = Ridge(alpha=0.003 * PENALTY_SCALE * 200).fit(standard, standardise(targets))
    assert head.outputs(features) == pytest.approx(known.predict(standard), abs=1e-3)
    decisions = TASK.decide(head.outputs(features), TASK.calibrate(head.outputs(features), targets))
    assert r2_score(targets.values, decisions) > 0.6


def test_the_derivative_of_the_loss_is_right():
    outputs = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    share = torch.rand(2, 5, dtype=torch.float64)
    loss, residual = SquaredLoss(torch.randn(5, 3).double()).value_and_residual(outputs, share)
    (slope,) = torch.autograd.grad(loss.sum(), outputs)
    assert torch.allclose(slope, residual)


def test_fine_tuning_has_hubers_loss_of_standardised_errors(linear):
    _, targets = linear
    outputs = np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32) * 2
    loss = TASK.loss(targets, weighting="none", label_smoothing=0.0, device=torch.device("cpu"))
    total = loss.total(torch.from_numpy(outputs), loss.encode(targets.values)) / 200
    assert float(total) == pytest.approx(TASK.losses(outputs, targets).mean(), rel=1e-4)


def test_part_of_targets_keeps_units_of_all(linear):
    _, targets = linear
    part = targets.take(np.arange(3))
    assert (part.units == targets.units).all()
    assert TASK.calibrate(np.zeros((3, 2)), part)["means"] == targets.units[0].tolist()


def test_measures_are_those_of_scikit_learn_and_scipy():
    random = np.random.default_rng(2)
    true, said = random.integers(0, 6, (40, 2)), random.integers(0, 6, (40, 2))
    assert explained_share(said, true) == pytest.approx(r2_score(true, said))
    known = [spearmanr(true[:, k], said[:, k]).statistic for k in (0, 1)]
    assert rank_correlation(said, true) == pytest.approx(np.mean(known))
    assert explained_share(said, np.ones((40, 2))) == 0.0
    assert rank_correlation(said, np.ones((40, 2))) == 0.0


def test_intervals_hold_the_stated_share():
    random = np.random.default_rng(3)
    inside = []
    for _ in range(300):
        errors = np.abs(random.normal(size=40))
        width = interval_width(np.sort(errors[:39]), 0.9)
        inside.append(errors[39] <= width)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.05)
    assert interval_width(np.arange(5), 0.95) is None


def test_an_answer_carries_the_interval_of_the_coverage():
    decisions, reference = (
        np.array([[10.0, 2.0]]),
        {"errors": np.sort(np.tile([[1.0, 0.5]], (20, 1)))},
    )
    reference["errors"] = np.tile([[1.0, 0.5]], (20, 1))
    plain = TASK.answer(decisions[0], ["a", "b"], AnswerOptions(), reference)
    wide = TASK.answer(decisions[0], ["a", "b"], AnswerOptions(coverage=0.9), reference)
    few = TASK.answer(decisions[0], ["a", "b"], AnswerOptions(coverage=0.99), reference)
    assert plain.to_json()["values"][0] == {"name": "a", "value": 10.0}
    assert [(one.low, one.high) for one in wide.values] == [(9, 11), (1.5, 2.5)]
    assert few.values[0].low is None
    assert (plain.text, wide.summary) == ("10;2", "a 10 (9 to 11)  b 2 (1.5 to 2.5)")
    assert NumbersAnswer.from_json(wide.to_json()) == wide
    assert TASK.tensors([plain], ["a", "b"]) == {"values": [10.0, 2.0]}
    assert TASK.check_promises(
        [wide], Targets(np.array([[10.5, 3.0]]), ("a", "b"), np.zeros(1))
    ) == {
        "coverage_95": 0.5,
        "interval_width_95": 1.5,
    }


def test_numbers_that_move_away_are_drift():
    random = np.random.default_rng(4)
    said = random.normal(size=(500, 1))
    kept = TASK.remember(said, Targets(said, ("x",), np.zeros(500)))
    answers = [
        TASK.answer(one, ["x"], AnswerOptions(), kept) for one in random.normal(size=(300, 1))
    ]
    moved = [TASK.answer(one + 1, ["x"], AnswerOptions(), kept) for one in said]
    assert TASK.drift(answers, ["x"], kept)["x"] < 0.1
    assert TASK.drift(moved, ["x"], kept)["x"] > 0.25


@pytest.mark.parametrize(
    ("calibration", "fault"),
    [
        ({"means": [0.0]}, "scales must have 1 values"),
        ({"means": [0.0], "scales": [0.0]}, "scales above 0"),
        ({"means": [float("inf")], "scales": [1.0]}, "must be finite"),
        ({"means": "0", "scales": [1.0]}, "means must have 1 values"),
    ],
)
def test_a_calibration_that_cannot_be_is_found(calibration, fault):
    assert fault in TASK.find_fault(["a"], calibration)


def test_gate_knows_that_smaller_error_is_better():
    random = np.random.default_rng(5)
    true = random.normal(size=(150, 1)).astype(np.float32)
    targets = Targets(true, ("x",), np.zeros(150, np.int64), np.arange(150) // 3)
    good, bad = true + 0.1 * random.normal(size=true.shape), true + random.normal(size=true.shape)
    for metric in TASK.gate_metrics:
        better = TASK.compare(bad, good, targets, metric=metric, rule="better", min_gain=0.0)
        assert better.promote, metric
        assert better.gain_interval[0] > 0
        worse = TASK.compare(good, bad, targets, metric=metric, rule="not_worse", min_gain=0.0)
        assert not worse.promote
    assert TASK.headline == "mean_absolute_error"
    assert TASK.score == "r2"


def test_images_of_one_group_widen_the_interval():
    random = np.random.default_rng(6)
    of_group = np.repeat(random.normal(size=20), 10)[:, None]
    true = np.zeros((200, 1), np.float32)
    alone = Numbered(of_group, Targets(true, ("x",), np.zeros(200), None)).metrics()
    groups = np.repeat(np.arange(20), 10)
    grouped = Numbered(of_group, Targets(true, ("x",), np.zeros(200), groups)).metrics()
    widths = [
        one["mean_absolute_error_high"] - one["mean_absolute_error_low"] for one in (alone, grouped)
    ]
    assert widths[1] > 2 * widths[0]
