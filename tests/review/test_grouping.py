"""Images that belong together, by names or closeness, and a report if splits divide them."""

import numpy as np
import pytest

from rootstock.heads.linear import split_folds
from rootstock.review.findings import gather_findings
from rootstock.review.grouping import find_groups, measure_groups
from rootstock.tasks.single_label.task import SingleLabel
from tests.plan.test_planner import make_profile
from tests.review.test_doubts import row
from tests.review.test_report import CLEAN, a_review

SPLITS = ("train", "train", "val", "test")


def tracks(n_tracks=16, frames=10, *, name="{track:03}_{frame:03}", spread=0.05, divided=True):
    """Return frames of tracks that look the same; they show the class only weakly."""
    random = np.random.default_rng(0)
    rows, features = [], []
    for track in range(n_tracks):
        scene = random.normal(size=24)
        for frame in range(frames):
            place = name.format(track=track, frame=frame, chance=int(random.integers(10**9)))
            split = SPLITS[(frame if divided else track) % 4]
            path = f"class{track % 2}/{place}.png"
            rows.append(row(path, f"class{track % 2}", split=split, group=len(rows)))
            features.append(scene + spread * random.normal(size=24))
    return rows, np.array(features, np.float32)


def test_divided_tracks_are_found_by_names():
    found, names = find_groups(*tracks())
    assert (found.pattern, found.n_groups, found.n_divided) == ("first_number", 16, 16)
    assert found.largest == 10
    assert len(set(names)) == 16


def test_divided_tracks_are_found_by_closeness():
    rows, features = tracks(name="{chance}")
    found, names = find_groups(rows, features)
    assert found.pattern == ""
    assert found.n_divided >= 16
    scene_of = {}
    for number, name in enumerate(names):
        assert scene_of.setdefault(name, number // 10) == number // 10


def test_undivided_groups_are_not_reported():
    assert find_groups(*tracks(divided=False)) is None


def test_misleading_names_do_not_form_groups():
    rows, _ = tracks()
    features = np.random.default_rng(1).normal(size=(len(rows), 24)).astype(np.float32)
    assert find_groups(rows, features) is None


def test_divided_tracks_flatter_the_score():
    rows, features = tracks()
    _, names = find_groups(rows, features)
    divided, whole = measure_groups(SingleLabel(), rows, features, names, folds=4, seed=0)
    assert divided > 0.95
    assert whole < 0.75


def test_divided_groups_are_first_finding_with_both_figures():
    found, _ = find_groups(*tracks())
    found = found.model_copy(update={"score_divided": 0.998, "score_whole": 0.712})
    summary = CLEAN | {"leaks_across_given_splits": [["a", "b"]], "duplicate_groups": [["a", "b"]]}
    first, *_ = gather_findings(a_review(groups=found), make_profile(), summary)
    assert first.weight == 3
    assert "16 of 16 groups" in first.what
    assert "99.8%" in first.what
    assert "71.2%" in first.what
    assert "data.group: first_number" in first.todo


def test_harmless_groups_have_a_low_weight():
    found, _ = find_groups(*tracks())
    found = found.model_copy(update={"score_divided": 0.9, "score_whole": 0.895})
    (only,) = gather_findings(a_review(groups=found), make_profile(), CLEAN)
    assert only.weight == 2


@pytest.mark.parametrize("seed", range(5))
def test_folds_keep_groups_whole_and_strata_even(seed):
    groups = np.repeat(np.arange(24), 5)
    strata = np.repeat(np.arange(24) % 3, 5)
    tests = split_folds(strata, 4, seed, groups)
    assert sorted(np.concatenate(tests).tolist()) == list(range(120))
    for test in tests:
        assert not set(groups[test]) & set(np.delete(groups, test))
        assert set(strata[test]) == {0, 1, 2}
        assert len(test) == 30


def test_groups_of_one_image_are_folds_without_groups():
    strata = np.arange(60) % 3
    plain, single = split_folds(strata, 5, 1), split_folds(strata, 5, 1, np.arange(60) + 7)
    for one, other in zip(plain, single, strict=True):
        np.testing.assert_array_equal(one, other)
