"""Similar images: exact, in order, and only with an index of the same model."""

import dataclasses

import numpy as np
import pytest

from rootstock.errors import ArtifactError, BundleError
from rootstock.explain import similar
from rootstock.explain.coarse import CoarseRows
from rootstock.explain.similar import ImageIndex, Match, precision_at
from rootstock.model.bundle import read_bundle
from rootstock.model.known_images import KnownImage, KnownImages, make_thumbnail
from rootstock.model.novelty import Reference, unit_rows
from rootstock.model.predictor import Predictor
from rootstock.tasks.task import AnswerOptions
from tests.bundles import jpeg, tiny_bundle, tiny_network, tiny_reference, write_tiny_bundle


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(500, 24)).astype(np.float32)


def make_index(rows, targets=None):
    names = [f"{number}.jpg" for number in range(len(rows))]
    return ImageIndex.make(rows, names, targets or [""] * len(rows), "digest")


@pytest.mark.parametrize("block", [7, 100, 65_536])
def test_search_finds_what_comparing_all_pairs_does(rows, block, monkeypatch):
    monkeypatch.setattr(similar, "BLOCK_ROWS", block)
    queries = np.random.default_rng(1).normal(size=(5, 24))
    index = make_index(rows)
    unit = index.features.astype(np.float32)
    likeness = queries / np.linalg.norm(queries, axis=1, keepdims=True) @ unit.T
    for matches, expected in zip(index.search(queries, 10), likeness, strict=True):
        assert [one.row for one in matches] == np.argsort(-expected, kind="stable")[:10].tolist()
        distances = [one.distance for one in matches]
        np.testing.assert_allclose(distances, 1 - np.sort(expected)[::-1][:10], atol=1e-5)


def test_search_for_more_than_there_are_returns_all(rows):
    (matches,) = make_index(rows[:3]).search(rows[:1], 10)
    assert [one.row for one in matches][0] == 0
    assert len(matches) == 3


def test_equal_distances_keep_the_order_of_the_rows():
    index = make_index(np.ones((4, 3)))
    (matches,) = index.search(np.ones((1, 3)), 4)
    assert [one.row for one in matches] == [0, 1, 2, 3]
    assert isinstance(matches[0], Match)


def test_precision_is_that_of_the_other_images():
    directions = np.repeat(np.eye(2), 3, axis=0) + 0.01 * np.arange(6)[:, None]
    index = make_index(directions, ["a", "a", "b", "b", "b", "b"])
    precision = precision_at(index, [1, 2])
    assert precision["a"][2] == pytest.approx(0.5)
    assert precision["b"][1] == pytest.approx(0.75)


def test_index_on_disk_is_of_one_model(rows, tmp_path):
    predictor = Predictor(tiny_bundle())
    index = ImageIndex.make(rows, ["a"] * 500, [""] * 500, predictor.bundle.digest)
    index.write(tmp_path)
    np.testing.assert_array_equal(ImageIndex.read(tmp_path, predictor).features, index.features)
    make_index(rows).write(tmp_path)
    with pytest.raises(ArtifactError, match="another model"):
        ImageIndex.read(tmp_path, predictor)
    (tmp_path / "index.json").write_text("[]")
    with pytest.raises(ArtifactError, match="is not an index"):
        ImageIndex.read(tmp_path, predictor)


def write_known(folder, **changes):
    """The tiny bundle with a reference whose forty images have names."""
    reference = tiny_reference(tiny_network())
    images = [
        KnownImage(f"{seed}.jpg", "rose", "", make_thumbnail(np.full((90, 70, 3), seed, np.uint8)))
        for seed in range(200, 240)
    ]
    known = KnownImages(images, np.ones(40, np.float32))
    return write_tiny_bundle(folder, reference=reference, known=known, **changes)


def test_neighbour_of_a_training_image_is_that_image(tmp_path):
    predictor = Predictor(write_known(tmp_path / "model"))
    inferred = predictor.infer([predictor.prepare(jpeg(205))])
    options = AnswerOptions(neighbours=3)
    answer = predictor.answer(inferred.decisions[0], inferred.features[0], options)
    assert [one.path for one in answer.neighbours][0] == "205.jpg"
    assert answer.neighbours[0].distance == pytest.approx(0, abs=2e-3)
    assert answer.neighbours[0].target == "rose"
    assert answer.neighbours[0].thumbnail
    assert type(answer).from_json(answer.to_json()) == answer


def test_model_without_names_says_how_to_have_them():
    predictor = Predictor(tiny_bundle())
    with pytest.raises(BundleError, match=r"registry\.reference"):
        ImageIndex.of_reference(predictor)


def test_damaged_names_are_rejected(tmp_path):
    bundle = write_known(tmp_path / "model")
    assert len(read_bundle(bundle.directory).known_images.images) == 40
    reference = Reference(bundle.reference.features[:5], bundle.reference.distances)
    known = bundle.known_images
    broken = write_tiny_bundle(tmp_path / "broken", reference=reference, known=known)
    with pytest.raises(BundleError, match="does not fit"):
        _ = broken.known_images


def make_clusters(count, width, *, negative):
    """Return rows like image features: close to few directions, with copies and a blank row."""
    random = np.random.default_rng(3)
    centres = random.gamma(0.5, size=(20, width))
    rows = centres[random.integers(0, 20, count)] + 0.3 * random.normal(size=(count, width))
    rows = rows if negative else np.maximum(rows, 0)
    rows[count // 2 : count // 2 + 40] = rows[7]
    rows[11] = 0
    return rows.astype(np.float32)


@pytest.mark.parametrize("negative", [True, False])
def test_no_likeness_is_above_its_coarse_bound(negative):
    index = make_index(make_clusters(300, 96, negative=negative))
    coarse = CoarseRows.make(index.features)
    for query in unit_rows(make_clusters(30, 96, negative=negative)):
        likeness = index.features.astype(np.float64) @ query.astype(np.float64)
        excess = coarse.bounds(query) - likeness
        assert excess.min() >= 0
        # A loose bound would not help.
        assert np.median(excess) < 0.1


@pytest.mark.parametrize("negative", [True, False])
@pytest.mark.parametrize("count", [1, 10, 300])
def test_coarse_search_finds_what_comparing_all_does(negative, count):
    rows = make_clusters(similar.COARSE_ROWS, 48, negative=negative)
    index = make_index(rows)
    assert index.coarse is not None
    queries = np.concatenate([rows[5:9], make_clusters(30, 48, negative=negative)[:4]])
    unit = index.features.astype(np.float32)
    for query, matches in zip(unit_rows(queries), index.search(queries, count), strict=True):
        likeness = np.vecdot(unit, query)
        expected = np.argsort(-likeness, kind="stable")[:count]
        assert [one.row for one in matches] == expected.tolist()


def test_coarse_rows_come_back_from_disk(tmp_path):
    predictor = Predictor(tiny_bundle())
    rows = make_clusters(similar.COARSE_ROWS, 16, negative=False)
    names = ["a"] * len(rows)
    index = ImageIndex.make(rows, names, names, predictor.bundle.digest)
    index.write(tmp_path)
    again = ImageIndex.read(tmp_path, predictor)
    assert again.search(rows[:3], 5) == index.search(rows[:3], 5)
    np.testing.assert_array_equal(again.coarse.codes, index.coarse.codes)
    short = CoarseRows.make(index.features[1:])
    dataclasses.replace(index, coarse=short).write(tmp_path)
    with pytest.raises(ArtifactError, match="its files do not match"):
        ImageIndex.read(tmp_path, predictor)
