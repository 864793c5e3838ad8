import numpy as np
import pytest

from rootstock.review.suggest import suggest_images


@pytest.fixture
def clusters():
    """Four tight clusters of ten images each."""
    random = np.random.default_rng(0)
    centres = np.eye(4, 8)
    return np.concatenate([one + 0.01 * random.normal(size=(10, 8)) for one in centres])


def test_one_image_of_each_cluster_comes_before_second(clusters):
    chosen = suggest_images(clusters, np.full(40, 0.5), count=8)
    assert {one.row // 10 for one in chosen[:4]} == {0, 1, 2, 3}
    assert len({one.row for one in chosen}) == 8


def test_least_certain_image_of_cluster_is_taken(clusters):
    uncertainty = np.full(40, 0.001)
    uncertainty[[3, 14, 25, 36]] = 0.9
    chosen = suggest_images(clusters, uncertainty, count=4)
    assert {one.row for one in chosen} == {3, 14, 25, 36}


def test_what_is_labelled_already_is_chosen_last(clusters):
    chosen = suggest_images(clusters, None, count=3, known=clusters[:10])
    assert 0 not in {one.row // 10 for one in chosen}
    assert chosen[0].distance > 0.9


def test_a_task_without_uncertainty_chooses_by_features(clusters):
    chosen = suggest_images(clusters, None, count=4)
    assert {one.row // 10 for one in chosen} == {0, 1, 2, 3}


def test_the_same_input_gives_the_same_list(clusters):
    uncertainty = np.random.default_rng(1).random(40)
    first, second = (suggest_images(clusters, uncertainty, count=9) for _ in range(2))
    assert first == second


def test_pool_smaller_than_wish_is_all_suggested(clusters):
    assert len(suggest_images(clusters[:3], None, count=50)) == 3
    assert suggest_images(clusters[:0], np.zeros(0), count=5) == []
