"""Boxes: read from texts, compared with each other, and moved with their images."""

import json

import numpy as np
import pytest
import torch

from rootstock.errors import DataError
from rootstock.tasks import get_task
from rootstock.tasks.localisation import boxes
from rootstock.tasks.localisation.learning import BoxLoss, generalised_overlap
from rootstock.tasks.localisation.measures import measure
from rootstock.training.augment import augment, draw_changes


def text(*cells):
    return json.dumps(["cat", *map(str, cells)])


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (("1", "nan", "3", "4"), "y of a box is 'nan'"),
        (("1", "2", "", "4"), "width of a box is ''"),
        (("1", "2", "0", "4"), "a box of 'cat' is 0 x 4 pixels"),
        (("1", "2", "3", "-4"), "a box of 'cat' is 3 x -4 pixels"),
    ],
)
def test_a_box_without_numbers_or_area_is_rejected(tmp_path, cells, problem):
    with pytest.raises(DataError, match=problem):
        get_task("localisation").check_texts(tmp_path, [text(1, 2, 3, 4), text(*cells)])


def test_box_outside_the_image_is_clipped_with_warning(tmp_path):
    task = get_task("localisation")
    texts = [text(10, 20, 30, 40), text(-10, 50, 40, 100)]
    settled = task.settle(tmp_path, texts, ["a.jpg", "b.jpg"], np.array([[100, 100], [100, 100]]))
    assert json.loads(settled.texts[0]) == ["cat", 0.1, 0.2, 0.4, 0.6]
    assert json.loads(settled.texts[1]) == ["cat", 0.0, 0.5, 0.3, 1.0]
    assert settled.warnings == [
        "1 image with a box partly outside, the first is b.jpg; the part inside is used"
    ]
    with pytest.raises(DataError, match=r"the box of .*a.jpg is outside the image"):
        task.settle(tmp_path, [text(100, 0, 5, 5)], ["a.jpg"], np.array([[100, 100]]))


def test_targets_are_class_numbers_and_shares():
    task = get_task("localisation")
    texts = ['["dog", 0.0, 0.1, 0.5, 0.6]', '["cat", 0.2, 0.2, 0.4, 0.4]']
    assert task.read_names(texts) == ("cat", "dog")
    np.testing.assert_allclose(
        task.parse(texts, ("cat", "dog")), [[1, 0, 0.1, 0.5, 0.6], [0, 0.2, 0.2, 0.4, 0.4]]
    )


def test_overlap_of_boxes():
    one = np.array([[0, 0, 0.5, 1], [0, 0, 0.2, 0.2], [0, 0, 1, 1]])
    other = np.array([[0.25, 0, 0.75, 1], [0.8, 0.8, 1, 1], [0, 0, 1, 1]])
    np.testing.assert_allclose(boxes.overlap(one, other), [1 / 3, 0, 1])
    expected = [1 / 3, -0.92, 1]
    np.testing.assert_allclose(boxes.generalised_overlap(one, other), expected, atol=1e-6)
    found = generalised_overlap(torch.from_numpy(one), torch.from_numpy(other))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_box_with_its_sides_swapped_is_put_right():
    np.testing.assert_allclose(boxes.tidy(np.array([[0.8, -1, 0.2, 2]])), [[0.2, 0, 0.8, 1]])


def test_hit_needs_class_and_half_of_box():
    values = np.array([[0, 0, 0, 0.5, 1], [0, 0, 0, 0.5, 1], [1, 0, 0, 0.5, 1]], np.float32)
    decisions = np.array(
        [[0.9, 0.1, 0, 0, 0.5, 1], [0.9, 0.1, 0.25, 0, 0.75, 1], [0.9, 0.1, 0, 0, 0.5, 1]]
    )
    found = measure(decisions, values)
    assert found["localisation_accuracy"] == pytest.approx(1 / 3)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["mean_iou"] == pytest.approx((1 + 1 / 3 + 1) / 3)


@pytest.mark.parametrize("level", ["light", "medium"])
def test_a_box_moves_with_its_image(level):
    """White ellipses on black: their moved boxes must enclose what is white afterwards."""
    side, count = 96, 40
    random = np.random.default_rng(0)
    lower = random.uniform(0.25, 0.4, (count, 2))
    given = np.concatenate([lower, lower + random.uniform(0.2, 0.35, (count, 2))], axis=1)
    axis = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(axis, axis)
    pictures = []
    for left, top, right, bottom in given:
        inside = ((x - (left + right) / 2) / (right - left)) ** 2
        inside += ((y - (top + bottom) / 2) / (bottom - top)) ** 2
        pictures.append(np.where(inside < 0.25, 255, 0))
    images = torch.from_numpy(np.stack(pictures).astype(np.uint8)[..., None].repeat(3, axis=3))
    changes = draw_changes(count, level=level, flip=True, seed=1, epoch=0)
    loss = BoxLoss(1, 0.0, torch.device("cpu"))
    values = np.concatenate([np.zeros((count, 1)), given], axis=1).astype(np.float32)
    moved = loss.move(loss.encode(values), changes.maps)
    changed = augment(images, changes, output_size=side).mean(dim=1)
    seen = 0
    for picture, (_, *box, counts) in zip(changed, moved.tolist(), strict=True):
        white = picture > 0.5 * picture.max()
        if not counts or white[0].any() or white[-1].any():
            continue
        if white[:, 0].any() or white[:, -1].any():
            continue
        rows, columns = white.any(dim=1).nonzero(), white.any(dim=0).nonzero()
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose([float(edge) / side for edge in found], box, atol=0.03)
        seen += 1
    assert seen > count / 3


def test_box_that_crop_cuts_away_does_not_count():
    loss = BoxLoss(1, 0.0, torch.device("cpu"))
    values = np.array([[0, 0.0, 0.0, 0.2, 0.2], [0, 0.6, 0.6, 0.9, 0.9]], np.float32)
    right_half = torch.tensor([[[0.5, 0, 0.5], [0, 0.5, 0.5]]] * 2)
    moved = loss.move(loss.encode(values), right_half)
    assert moved[:, -1].tolist() == [0, 1]
    np.testing.assert_allclose(moved[1, 1:5], [0.2, 0.2, 0.8, 0.8], atol=1e-6)
    outputs = torch.tensor([[0.0, 9.0, 9.0, 9.0, 9.0], [0.0, 0.2, 0.2, 0.8, 0.8]])
    assert float(loss.total(outputs, moved)) == pytest.approx(0, abs=1e-5)
