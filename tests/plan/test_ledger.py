import pytest

from rootstock.config.choices import PRIOR_SHARES
from rootstock.plan.calibrate import calibrate
from rootstock.plan.ledger import LedgerRow, append_row, make_row, measure_pace, read_ledger
from rootstock.plan.pins import Pins
from rootstock.plan.planner import make_transfer_plan
from tests.plan.test_planner import EARLY_PROBES, a_race, make_profile, plan_for


def a_row(**changes) -> LedgerRow:
    facts = {
        "data_hash": "d" * 64,
        "weights_sha256": "w" * 64,
        "n_train": 1400,
        "n_classes": 2,
        "median_per_class": 700.0,
        "imbalance": 1.0,
        "size_class": "medium",
        "similarity": 0.2,
        "similar": False,
        "probe_last": 0.8,
        "probe_early": 0.7,
        "ruled": "probe_then_finetune",
        "strategy": "probe_then_finetune",
        "raced": False,
        "kept_head": False,
        "expected_accuracy": (0.85, 0.95),
        "test_accuracy": 0.9,
        "n_test": 100,
        "expected_minutes": 2.0,
        "minutes": 3.0,
        "seed": 0,
    }
    return LedgerRow(**(facts | changes))


def fitted(rows):
    return calibrate(
        rows,
        shares=PRIOR_SHARES,
        small_below=1000,
        similar_from=0.5,
        small_per_class_below=20,
        large_from=20_000,
    )


def test_rows_come_back_in_their_order(tmp_path):
    rows = [a_row(seed=seed) for seed in range(3)]
    for row in rows:
        append_row(tmp_path / "deep/ledger.jsonl", row)
    assert list(read_ledger(tmp_path / "deep/ledger.jsonl")) == rows


def test_a_run_repeated_is_written_once(tmp_path):
    for minutes in (3.0, 4.0):
        append_row(tmp_path / "ledger", a_row(minutes=minutes))
    assert len(list(read_ledger(tmp_path / "ledger"))) == 1


def test_truncated_line_is_reported_and_skipped(tmp_path, caplog):
    path = tmp_path / "ledger"
    append_row(path, a_row(seed=1))
    path.write_bytes(path.read_bytes() + b'{"format_ver')
    append_row(path, a_row(seed=2))
    assert [row.seed for row in read_ledger(path)] == [1, 2]
    assert "line 2 is ignored" in caplog.text


def test_no_ledger_has_no_rows(tmp_path):
    assert list(read_ledger(tmp_path / "none")) == []


def test_an_empty_ledger_changes_nothing():
    found = fitted([])
    assert found.shares == PRIOR_SHARES
    assert (found.small_below, found.similar_from, found.regret) == (1000, 0.5, None)


def test_shares_move_towards_what_was_seen():
    # every run removed 85 % of the errors, 25 points of which the dissimilarity explains
    rows = [a_row(test_accuracy=0.97, seed=seed) for seed in range(45)]
    low, high = fitted(rows).shares["medium"]
    assert low == pytest.approx(0.9 * 0.6 + 0.1 * 0.1, abs=1e-3)
    assert high == pytest.approx(0.6, abs=1e-3)
    assert fitted(rows).shares["small"] == PRIOR_SHARES["small"]


def test_thresholds_follow_the_better_strategies():
    # on five dissimilar sets of 600 images fine-tuning won, so 600 is not small
    rows = [
        a_row(data_hash=str(number), n_train=600, size_class="small", strategy=name,
              test_accuracy=accuracy)
        for number in range(5)
        for name, accuracy in (("early_features", 0.8), ("probe_then_finetune", 0.95))
    ]  # fmt: skip
    found = fitted(rows)
    assert found.small_below == 500
    assert found.similar_from == 0.5
    assert found.regret == (pytest.approx(15.0), 0.0)


def test_few_sets_leave_thresholds_unchanged():
    rows = [a_row(strategy=name) for name in ("early_features", "probe_then_finetune")]
    found = fitted(rows)
    assert (found.n_sets, found.small_below, found.regret) == (1, 1000, None)


def test_coverage_counts_runs_that_came_out_as_expected():
    rows = [a_row(test_accuracy=value, seed=n) for n, value in enumerate((0.9, 0.9, 0.9, 0.5))]
    assert fitted(rows).coverage == 0.75


def test_settings_are_keys_of_params_yaml():
    from rootstock.config.schema import Config

    settings = fitted([]).settings()
    assert Config.model_validate(settings | {"seed": 0}) == Config()


def test_few_images_per_class_count_as_small():
    # in hindsight fine-tuning won, but no border of images makes these sets more than small
    rows = [
        a_row(data_hash=str(number), n_train=600, median_per_class=5, size_class="small",
              strategy=name, test_accuracy=accuracy)
        for number in range(5)
        for name, accuracy in (("early_features", 0.8), ("probe_then_finetune", 0.95))
    ]  # fmt: skip
    found = fitted(rows)
    assert (found.small_below, found.regret) == (1000, (pytest.approx(15.0), pytest.approx(15.0)))


@pytest.mark.parametrize(("accuracy", "held"), [(0.846, True), (0.844, False), (0.954, True)])
def test_half_an_image_outside_range_is_as_expected(accuracy, held):
    assert a_row(test_accuracy=accuracy).as_expected is held


def test_without_a_range_nothing_was_expected():
    assert a_row(expected_accuracy=None).as_expected is None


def test_row_is_made_of_profile_plan_and_outcome():
    profile = make_profile(similar=False, probes=EARLY_PROBES, imbalance=2.5)
    plan = make_transfer_plan(
        profile, pins=Pins(strategy="full_finetune"), l2_grid=(1.0,), race=a_race("linear_probe")
    )
    row = make_row(
        profile,
        plan,
        kept_head=True,
        test_accuracy=0.7,
        n_test=40,
        expected_minutes=1.5,
        minutes=2.5,
        seed=7,
    )
    assert row == a_row(
        data_hash="d" * 64,
        weights_sha256="w" * 64,
        n_train=200,
        n_classes=2,
        median_per_class=100.0,
        imbalance=2.5,
        size_class="small",
        similarity=0.2,
        similar=False,
        probe_last=0.55,
        probe_early=0.8,
        ruled="early_features",
        strategy="full_finetune",
        raced=True,
        kept_head=True,
        expected_accuracy=row.expected_accuracy,
        test_accuracy=0.7,
        n_test=40,
        expected_minutes=1.5,
        minutes=2.5,
        seed=7,
    )
    candidates = {c.strategy: c.expected_accuracy for c in plan.candidates}
    assert row.expected_accuracy == candidates["full_finetune"]
    assert make_row(
        profile, plan_for(make_profile(probes=())), kept_head=False, test_accuracy=0.7, n_test=40,
        expected_minutes=None, minutes=2.5, seed=7,
    ).raced is False  # fmt: skip


def test_runs_that_differ_are_all_kept(tmp_path):
    for changes in ({}, {"test_accuracy": 0.91}, {"strategy": "linear_probe"}, {"minutes": 9.0}):
        append_row(tmp_path / "ledger", a_row(**changes))
    assert len(list(read_ledger(tmp_path / "ledger"))) == 3


def test_empty_lines_are_ignored(tmp_path, caplog):
    append_row(tmp_path / "ledger", a_row())
    text = (tmp_path / "ledger").read_bytes()
    (tmp_path / "ledger").write_bytes(b"\n \n" + text)
    assert list(read_ledger(tmp_path / "ledger")) == [a_row()]
    assert not caplog.text
    append_row(tmp_path / "ledger", a_row(seed=1))
    assert (tmp_path / "ledger").read_bytes().count(b"\n") == 4  # none is added


@pytest.mark.parametrize(
    "changes", [{"probe_last": None}, {"probe_last": 1.0}, {"strategy": "linear_probe"}]
)
def test_runs_without_fine_tuning_keep_the_shares(changes):
    rows = [a_row(seed=seed, test_accuracy=0.99, **changes) for seed in range(9)]
    assert fitted(rows).shares == PRIOR_SHARES


def test_single_run_moves_shares_by_sixth():
    (row,) = [a_row(similar=True, test_accuracy=0.9)]  # it removed half of the errors
    low, high = fitted([row]).shares["medium"]
    assert low == pytest.approx(5 / 6 * 0.1 + 1 / 6 * 0.5, abs=1e-3)
    assert high == pytest.approx(5 / 6 * 0.6 + 1 / 6 * 0.5, abs=1e-3)


def test_ruined_run_counts_as_twice_errors_at_most():
    rows = [a_row(similar=True, test_accuracy=0.0, probe_last=0.9)]
    assert fitted(rows).shares["medium"][0] == pytest.approx(5 / 6 * 0.1 - 1 / 6, abs=1e-3)


def test_similarity_from_which_heads_do_follows_runs_too():
    # on these five sets of similarity .6 the table's choice for similar data lost
    rows = [
        a_row(data_hash=str(number), n_train=1400, similarity=0.6, similar=True,
              strategy=name, test_accuracy=accuracy)
        for number in range(5)
        for name, accuracy in (("partial_finetune", 0.8), ("probe_then_finetune", 0.95))
    ]  # fmt: skip
    found = fitted(rows)
    assert (found.n_rows, found.n_sets) == (10, 5)
    assert (found.small_below, found.similar_from) == (1000, 0.7)
    assert found.regret == (pytest.approx(15.0), 0.0)


def test_a_strategy_tried_twice_counts_with_its_mean():
    rows = [
        a_row(data_hash=str(number), strategy=name, test_accuracy=accuracy, seed=seed)
        for number in range(3)
        for seed, name, accuracy in (
            (0, "probe_then_finetune", 0.7),
            (1, "probe_then_finetune", 0.9),
            (0, "linear_probe", 0.85),
        )
    ]
    assert fitted(rows).regret[0] == pytest.approx(5.0)


def test_strategy_that_was_not_tried_counts_like_worst():
    rows = [
        a_row(data_hash=str(number), strategy=name, test_accuracy=accuracy)
        for number in range(3)
        for name, accuracy in (("early_features", 0.8), ("linear_probe", 0.9))
    ]
    assert fitted(rows).regret[0] == pytest.approx(10.0)  # the table would fine-tune


def test_shares_are_10th_and_90th_percentiles():
    # what runs on similar data removed of the errors: nothing, a tenth, ... all
    rows = [
        a_row(similar=True, probe_last=0.5, test_accuracy=0.5 + 0.05 * n, seed=n) for n in range(11)
    ]
    low, high = fitted(rows).shares["medium"]
    assert low == pytest.approx(11 / 16 * 0.1 + 5 / 16 * 0.1, abs=1e-3)
    assert high == pytest.approx(11 / 16 * 0.9 + 5 / 16 * 0.6, abs=1e-3)


def test_ledger_creates_missing_folders(tmp_path):
    append_row(tmp_path / "a/b/c/ledger", a_row())
    assert list(read_ledger(tmp_path / "a/b/c/ledger")) == [a_row()]


def test_pace_is_learnt_from_runs_of_same_kind():
    def run(strategy, minutes, uncorrected):
        row = a_row(strategy=strategy, minutes=minutes)
        return row.model_copy(update={"uncorrected_minutes": uncorrected})

    early = [run("full_finetune", 1.0, 2.0)] * 9
    rows = [*early, run("linear_probe", 9.0, 1.0), run("full_finetune", 9.0, None)]
    assert measure_pace([], tuned=True) == 1
    assert measure_pace(rows, tuned=True) == pytest.approx(0.5, abs=0.05)
    assert measure_pace(early[:1], tuned=True) == pytest.approx(0.5**0.5)
    assert measure_pace(rows, tuned=False) == pytest.approx(3)
    slow = [run("full_finetune", 4.0, 2.0)] * 20
    assert measure_pace([*early, *slow], tuned=True) > 1.9  # only the last runs count
