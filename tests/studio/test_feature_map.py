"""Points of the map, and which of them a line encloses."""

import threading

import numpy as np
import pytest

from rootstock.errors import ArtifactError
from rootstock.studio import feature_map
from rootstock.studio.feature_map import FeatureMaps, place, project
from rootstock.studio.query import inside_polygon


class Stored:
    """Features in memory, read a block at a time."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def block(self, start):
        return self.values[start : start + feature_map._BLOCK_ROWS]


@pytest.fixture
def features():
    random = np.random.default_rng(0)
    scales = np.linspace(3, 0.1, 12)
    return (random.normal(size=(300, 12)) * scales + 5).astype(np.float32)


def test_blocks_give_the_same_components_as_the_whole(features, monkeypatch):
    whole = project(Stored(features), 3)
    monkeypatch.setattr(feature_map, "_BLOCK_ROWS", 37)
    np.testing.assert_allclose(project(Stored(features), 3), whole, atol=2e-4)


def test_components_are_those_of_a_singular_value_decomposition(features):
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * values[:2]
    found = project(Stored(features), 2)
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-3)


def test_one_far_image_does_not_squeeze_the_others(features):
    many = np.tile(features, (4, 1))
    many[0] += 1e4
    points = place(Stored(many), "pca")
    assert points.min() >= 0
    assert points.max() <= 1
    assert points.std(axis=0).min() > 0.1


@pytest.mark.parametrize(("method", "package"), [("tsne", "sklearn"), ("umap", "umap")])
def test_slow_map_keeps_groups_together_with_bounded_work(monkeypatch, method, package):
    pytest.importorskip(package)
    random = np.random.default_rng(0)
    group = np.arange(400) % 4
    centres = random.normal(size=(4, 12)) * 20
    features = (centres[group] + random.normal(size=(400, 12))).astype(np.float32)
    monkeypatch.setattr(feature_map, "MAX_SLOW_IMAGES", 120)
    looked_at = []
    name = f"_run_{method}"
    run = getattr(feature_map, name)
    monkeypatch.setattr(feature_map, name, lambda rows: looked_at.append(len(rows)) or run(rows))
    points = place(Stored(features), method)
    assert looked_at == [120]
    assert points.shape == (400, 2)
    assert ((points >= 0) & (points <= 1)).all()
    means = np.array([points[group == number].mean(axis=0) for number in range(4)])
    distances = np.linalg.norm(points[:, None] - means, axis=2)
    assert (distances.argmin(axis=1) == group).mean() > 0.99


def test_a_method_that_is_not_installed_is_named(features):
    with pytest.raises(ArtifactError, match="'magic' is not installed; available: pca"):
        place(Stored(features), "magic")


def test_polygon_with_bay_holds_what_is_inside():
    bay = np.array([(0, 0), (4, 0), (4, 4), (2, 1), (0, 4)], float)
    points = np.array([(0.5, 1), (2, 3), (3.5, 1), (2, 0.5), (5, 1), (-1, 2)], float)
    assert inside_polygon(points, bay).tolist() == [True, False, True, True, False, False]


def test_a_slow_map_does_not_keep_others_waiting(tmp_path, monkeypatch):
    maps, inside, go_on = FeatureMaps(tmp_path), threading.Event(), threading.Event()

    def make(self, key, rows, store, index, method):
        if method == "tsne":
            inside.set()
            assert go_on.wait(10)
        return method

    monkeypatch.setattr(FeatureMaps, "_make", make)
    index = {"taps": ["last"], "weights_sha256": "", "preprocess_hash": ""}
    slow = threading.Thread(target=maps.get, args=([], tmp_path, index, "tsne"))
    slow.start()
    assert inside.wait(10)
    assert maps.get([], tmp_path, index, "pca") == "pca"
    go_on.set()
    slow.join(10)
