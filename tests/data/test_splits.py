from collections import Counter

import numpy as np
import pytest

from rootstock.data.splits import assign_splits

SHARES = {"val_fraction": 0.2, "test_fraction": 0.2, "seed": 0}


def split(groups, labels=None, given=None, **changes):
    groups = np.asarray(groups)
    labels = labels or ["a"] * len(groups)
    return assign_splits(groups, labels, given or [None] * len(groups), **(SHARES | changes))


def test_each_class_gets_its_share_up_to_chance():
    labels = ["a"] * 2000 + ["b"] * 1000
    found = split(range(3000), labels)
    for label, total in Counter(labels).items():
        counts = Counter(s for s, name in zip(found, labels, strict=True) if name == label)
        assert abs(counts["test"] / total - 0.2) < 0.04
        assert abs(counts["val"] / total - 0.2) < 0.04


def test_groups_stay_whole():
    groups = np.repeat(np.arange(200), 3)
    found = split(groups)
    assert all(len(set(found[i : i + 3])) == 1 for i in range(0, 600, 3))


def test_adding_images_moves_no_old_one():
    labels = [str(i % 4) for i in range(1000)]
    old = split(range(500), labels[:500])
    assert split(range(1000), labels, old_splits=[*old, *[None] * 500])[:500] == old


def test_another_seed_is_another_split():
    assert split(range(200)) != split(range(200), seed=1)


def test_even_a_class_of_three_reaches_every_split():
    for start in range(0, 300, 3):
        found = split(range(start, start + 3))
        assert set(found) == {"train", "val", "test"}


def test_missing_split_is_taken_from_given_train():
    given = ["train"] * 300 + ["test"] * 50
    found = split(range(350), given=given)
    assert found[300:] == ["test"] * 50
    assert set(found[:300]) == {"train", "val"}


def test_copy_of_given_test_image_stays_in_train():
    groups = list(range(100)) + list(range(100))
    given = ["train"] * 100 + ["test"] * 100
    assert set(split(groups, given=given)[:100]) == {"train"}


def test_a_share_of_nothing_makes_no_split():
    assert set(split(range(100), val_fraction=0.0, test_fraction=0.0)) == {"train"}


def test_test_and_val_have_their_own_shares():
    counts = Counter(split(range(4000), val_fraction=0.1, test_fraction=0.3))
    assert abs(counts["test"] / 4000 - 0.3) < 0.03
    assert abs(counts["val"] / 4000 - 0.1) < 0.03


def test_given_images_without_a_split_are_trained_on():
    found = split(range(60), given=["test"] * 20 + [None] * 40, val_fraction=0.0)
    assert found == ["test"] * 20 + ["train"] * 40


def test_a_class_of_one_group_stays_in_training():
    labels = ["a"] * 300 + ["b"] * 3
    groups = [*range(300), *[1000] * 3]
    assert set(split(groups, labels)[300:]) == {"train"}


def test_class_left_out_by_chance_gets_one_group():
    found = [split(range(start, start + 4), val_fraction=0.01) for start in range(0, 400, 4)]
    assert all(names.count("val") == 1 for names in found)
    with_copies = [split([start, start, start + 1, start + 2, start + 2]) for start in range(99)]
    for names in with_copies:
        assert set(names) == {"train", "val", "test"}
        assert names[0] == names[1]
        assert names[3] == names[4]


def test_empty_split_gets_a_random_group():
    found = [split(range(start, start + 4), val_fraction=1e-6) for start in range(0, 800, 4)]
    places = Counter(names.index("val") for names in found)
    assert min(places[place] for place in range(4)) > 20


@pytest.mark.parametrize("seed", range(20))
def test_single_group_class_is_never_removed_from_training(seed):
    labels = ["a"] * 20 + ["b"] * 6
    assert set(split([*range(20), *[1000] * 6], labels, seed=seed)[20:]) == {"train"}


@pytest.mark.parametrize("seed", range(40))
def test_mixed_groups_leave_both_classes_in_training(seed):
    groups = [0, 0, 1, 1, 2, 2, 3, 4]
    labels = ["a", "b", "a", "b", "a", "c", "c", "c"]
    found = split(groups, labels, seed=seed)
    trained = {label for label, name in zip(labels, found, strict=True) if name == "train"}
    assert trained == {"a", "b", "c"}
