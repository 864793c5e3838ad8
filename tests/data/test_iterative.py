"""Splits of images with several labels: the share of each label, and stability with new images."""

import numpy as np
import pytest

from rootstock.data.splits import assign_splits

FRACTIONS = {"val_fraction": 0.15, "test_fraction": 0.15}


def draw_labels(count, seed=0):
    """Return sets of five labels that come together, some of them rarely."""
    random = np.random.default_rng(seed)
    shares = np.array([0.9, 0.5, 0.3, 0.1, 0.04])
    mood = random.random((count, 1))
    present = random.random((count, 5)) < np.clip(shares * (0.5 + mood), 0, 1)
    return [tuple(f"l{k}" for k in np.flatnonzero(row)) or ("none",) for row in present]


def divide(labels, groups=None, **options):
    groups = np.arange(1000, 1000 + len(labels)) if groups is None else groups
    strata = [sorted(some)[-1] for some in labels]
    settings = FRACTIONS | {"seed": 0} | options
    return assign_splits(groups, strata, [None] * len(labels), balance=labels, **settings)


@pytest.mark.parametrize("seed", range(3))
def test_each_split_has_its_share_of_each_label(seed):
    labels = draw_labels(400, seed)
    splits = np.array(divide(labels))
    for name in {label for some in labels for label in some}:
        has = np.array([name in some for some in labels])
        for split, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
            assert abs((has & (splits == split)).sum() - share * has.sum()) <= 3, (name, split)


def test_same_images_are_divided_in_same_way():
    labels = draw_labels(200)
    assert divide(labels) == divide(labels)


def test_old_images_stay_when_new_ones_come():
    labels = draw_labels(300)
    old = divide(labels[:200])
    new = divide(labels, old_splits=[*old, *[None] * 100])
    assert new[:200] == old
    assert {"val", "test"} <= set(new[200:])


def test_groups_stay_whole():
    labels, groups = draw_labels(300), np.arange(300) // 4
    splits = divide(labels, groups)
    assert all(len(set(splits[start : start + 4])) == 1 for start in range(0, 300, 4))


def test_a_label_of_one_image_is_trained_on():
    labels = [("common",)] * 50 + [("common", "once")]
    assert divide(labels)[-1] == "train"
