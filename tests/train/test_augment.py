import pytest
import torch

from rootstock.train.augment import STRENGTHS, augment, draw_changes


def picture(count=2, side=32):
    """A red left half and a blue right half."""
    images = torch.zeros(count, side, side, 3, dtype=torch.uint8)
    images[:, :, : side // 2, 0] = 200
    images[:, :, side // 2 :, 2] = 200
    return images


def changes(count=2, **settings):
    return draw_changes(
        count, **({"level": "medium", "flip": False, "seed": 0, "epoch": 0} | settings)
    )


def test_none_only_resizes():
    found = augment(picture(side=32), changes(level="none"), output_size=32)
    torch.testing.assert_close(found, picture(side=32).permute(0, 3, 1, 2).float())


@pytest.mark.parametrize("level", STRENGTHS)
def test_every_level_gives_pixels_of_the_asked_size(level):
    found = augment(picture(), changes(level=level, flip=True), output_size=24)
    assert found.shape == (2, 3, 24, 24)
    assert 0 <= found.min() <= found.max() <= 255


def test_about_half_of_the_images_are_mirrored_and_none_without_flip():
    for flip, low, high in ((True, 0.4, 0.6), (False, 0.0, 0.0)):
        found = augment(picture(500), changes(500, level="none", flip=flip), output_size=8)
        mirrored = (found[:, 2, 4, 0] > found[:, 0, 4, 0]).float().mean()
        assert low <= mirrored <= high


def test_an_image_sees_the_same_change_in_any_batch():
    drawn = changes(10)
    alone = augment(picture(1), drawn[torch.tensor([7])], output_size=16)
    together = augment(picture(10), drawn[torch.arange(10)], output_size=16)
    torch.testing.assert_close(alone[0], together[7])


def test_strong_changes_depend_on_the_image_alone_and_leave_the_generator_as_it_was():
    drawn = changes(10, level="strong")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    together = augment(picture(10), drawn[torch.arange(10)], output_size=16)
    assert torch.equal(torch.rand(1), expected)
    alone = augment(picture(1), drawn[torch.tensor([7])], output_size=16)
    torch.testing.assert_close(alone[0], together[7])


def test_strong_augmentation_does_not_mirror_where_that_is_unsafe():
    found = augment(picture(200), changes(200, level="strong"), output_size=8)
    # rotated, sheared or recoloured, but red stays left of blue in nearly all
    mirrored = (found[:, 2, 4, 0] > found[:, 0, 4, 0] + 50).float().mean()
    assert mirrored < 0.15


def test_epochs_and_seeds_draw_anew():
    first = changes().maps
    assert not torch.equal(first, changes(epoch=1).maps)
    assert not torch.equal(first, changes(seed=1).maps)
    assert torch.equal(first, changes().maps)
