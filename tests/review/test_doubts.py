import numpy as np
import pytest

from rootstock.data.manifest import ImageRow
from rootstock.review.doubts import find_bursts, find_outliers


def row(path, label, *, split="train", **changes):
    facts = {
        "path": path,
        "sha256": path.ljust(64, "0"),
        "bytes": 1000,
        "width": 100,
        "height": 100,
        "mode": "RGB",
        "format": "JPEG",
        "target": label,
        "stratum": label,
        "split": split,
        "group": 0,
        "quarantine": "",
    }
    return ImageRow(**(facts | changes))


def clusters(n=300, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    features = np.eye(12)[labels] * 6 + 0.5 * random.normal(size=(n, 12))
    return features, labels


def test_image_far_from_all_others_is_outlier():
    features, labels = clusters()
    features[7] = 0
    features[7, 11] = 40
    rows = [row(f"{i:03d}.jpg", "ants") for i in range(len(labels))]
    found = find_outliers(rows, features)
    assert [outlier.path for outlier in found] == ["007.jpg"]


@pytest.mark.parametrize("n", [3, 19])
def test_a_handful_of_images_has_no_outliers(n):
    features, _ = clusters(n)
    assert find_outliers([row(f"{i}.jpg", "ants") for i in range(n)], features) == []


def test_identical_images_have_no_outliers():
    rows = [row(f"{i}.jpg", "ants") for i in range(40)]
    assert find_outliers(rows, np.ones((40, 5))) == []


def test_frames_of_one_scene_are_a_burst():
    random = np.random.default_rng(0)
    features = random.normal(size=(60, 16))
    features[10:14] = features[10] + 0.01 * random.normal(size=(4, 16))
    rows = [
        row(f"{i:03d}.jpg", "ants" if i < 30 else "bees", split="test" if i == 12 else "train")
        for i in range(60)
    ]
    (burst,) = find_bursts(rows, features)
    assert burst.paths == ("010.jpg", "011.jpg", "012.jpg", "013.jpg")
    assert burst.splits == ("test", "train")


def test_byte_equal_copies_are_no_burst():
    random = np.random.default_rng(0)
    features = random.normal(size=(40, 16))
    features[5] = features[4]
    rows = [row(f"{i:03d}.jpg", "ants" if i < 20 else "bees") for i in range(40)]
    rows[5] = row("005.jpg", "ants", sha256=rows[4].sha256)
    assert find_bursts(rows, features) == []
