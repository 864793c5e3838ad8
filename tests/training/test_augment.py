import dataclasses

import pytest
import torch

from rootstock.training.augment import STRENGTHS, augment, draw_changes, show_changes


def picture(count=2, side=32):
    """Return an image with a red left half and a blue right half."""
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


def test_half_of_images_are_mirrored_with_flip():
    for flip, low, high in ((True, 0.4, 0.6), (False, 0.0, 0.0)):
        found = augment(picture(500), changes(500, level="none", flip=flip), output_size=8)
        mirrored = (found[:, 2, 4, 0] > found[:, 0, 4, 0]).float().mean()
        assert low <= mirrored <= high


def test_image_sees_same_change_in_any_batch():
    drawn = changes(10)
    alone = augment(picture(1), drawn[torch.tensor([7])], output_size=16)
    together = augment(picture(10), drawn[torch.arange(10)], output_size=16)
    torch.testing.assert_close(alone[0], together[7])


def test_strong_changes_depend_only_on_the_image():
    drawn = changes(10, level="strong")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    together = augment(picture(10), drawn[torch.arange(10)], output_size=16)
    assert torch.equal(torch.rand(1), expected)
    alone = augment(picture(1), drawn[torch.tensor([7])], output_size=16)
    torch.testing.assert_close(alone[0], together[7])


def test_strong_augmentation_mirrors_only_if_safe():
    found = augment(picture(200), changes(200, level="strong"), output_size=8)
    # rotated, sheared or recoloured, but red stays left of blue in nearly all
    mirrored = (found[:, 2, 4, 0] > found[:, 0, 4, 0] + 50).float().mean()
    assert mirrored < 0.15


def test_epochs_and_seeds_draw_different_changes():
    first = changes().maps
    assert not torch.equal(first, changes(epoch=1).maps)
    assert not torch.equal(first, changes(seed=1).maps)
    assert torch.equal(first, changes().maps)


def test_local_warp_is_bounded_and_keeps_border():
    fine = torch.linspace(0, 255, 64).round().to(torch.uint8)
    across, along = fine.expand(64, 64), fine.expand(64, 64).T
    pictures = torch.stack([across, along, torch.zeros_like(across)], dim=2)[None]
    drawn = changes(100, level="none", local_warp=0.05)
    found = augment(pictures.expand(100, 64, 64, 3), drawn, output_size=64)[:, :2]
    moved = (found - pictures[0, :, :, :2].permute(2, 0, 1)).abs() / 255
    assert 0.04 < moved.max() < 0.07  # cubic curves overshoot a little
    assert moved[:, :, [0, -1]].max() < 0.01
    assert moved.flatten(1).max(dim=1).values.min() > 0.005


def test_channels_are_shifted_apart_up_to_their_share():
    pictures = torch.full((200, 4, 4, 3), 100, dtype=torch.uint8)
    drawn = changes(200, level="none", channel_shift=0.1)
    shifts = (augment(pictures, drawn, output_size=4).mean(dim=(2, 3)) - 100) / 255
    assert 0.095 < shifts.abs().max() <= 0.1001
    assert torch.corrcoef(shifts.T)[0, 1].abs() < 0.2


@pytest.mark.parametrize("level", STRENGTHS)
def test_warp_and_shift_keep_other_changes(level):
    plain, more = changes(level=level), changes(level=level, local_warp=0.03, channel_shift=0.1)
    assert torch.equal(plain.maps, more.maps)
    assert torch.equal(plain.colours, more.colours)
    assert plain.seeds is None or torch.equal(plain.seeds, more.seeds)
    assert plain.warps is plain.shifts is None


def test_each_change_is_shown_in_turn():
    shown = show_changes(
        picture(3), output_size=24, level="medium", flip=True, seed=0, local_warp=0.03
    )
    assert list(shown) == [
        "original",
        "crop, turn and shear",
        "mirror image",
        "colour and contrast",
        "local warp",
        "all together",
    ]
    assert all(one.shape == (3, 24, 24, 3) for one in shown.values())
    assert all(not torch.equal(one, shown["original"]) for one in list(shown.values())[1:])
    assert shown["mirror image"][0, 12, 2, 2] > 150


GREY = torch.linspace(55, 200, 64).round().to(torch.uint8)
"""Grey levels of a picture that brightens evenly in one direction."""


def slopes(direction, level, count=300):
    """Return how fast augmented pictures brighten to the right and downwards, at their centre."""
    ramp = GREY.expand(64, 64) if direction == "right" else GREY.expand(64, 64).T
    pictures = ramp[None, :, :, None].expand(count, 64, 64, 3)
    found = augment(pictures, changes(count, level=level), output_size=64).mean(dim=1)
    middle = found[:, 28:36, 28:36]
    right = middle[:, :, -1].mean(dim=1) - middle[:, :, 0].mean(dim=1)
    down = middle[:, -1].mean(dim=1) - middle[:, 0].mean(dim=1)
    return right, down


@pytest.mark.parametrize(("level", "rotation", "shear"), [("light", 5, 3), ("medium", 12, 6)])
def test_rotation_and_shear_stay_within_level(level, rotation, shear):
    right, down = slopes("down", level)
    turned = torch.rad2deg(torch.atan2(right, down))  # a sheared picture still gets darker upwards
    assert 0.8 * rotation < turned.abs().max() < 1.2 * rotation + 1
    assert turned.min() < 0 < turned.max()
    right, down = slopes("right", level)
    sheared = torch.rad2deg(torch.atan2(down, right)) + turned
    assert 0.8 * shear < sheared.abs().max() < 1.2 * shear + 1
    assert sheared.min() < 0 < sheared.max()


@pytest.mark.parametrize(("level", "least"), [("light", 0.7), ("medium", 0.4), ("strong", 0.4)])
def test_crops_keep_at_least_their_share(level, least):
    # A picture that brightens to the right and downwards: the remaining range shows the side's
    # share
    fine = torch.linspace(0, 255, 256).round().to(torch.uint8)
    across, along = fine.expand(256, 256), fine.expand(256, 256).T
    pictures = torch.stack([across, along, torch.zeros_like(across)], dim=2)[None]
    drawn = changes(300, level=level)
    plain = dataclasses.replace(drawn, colours=torch.ones(300, 3), seeds=None)
    found = augment(pictures.expand(300, 256, 256, 3), plain, output_size=32)
    middle = found[:, :, 12:20, 12:20] / 255 * 32 / 7
    width = (middle[:, 0, :, -1] - middle[:, 0, :, 0]).mean(dim=1)
    height = (middle[:, 1, -1] - middle[:, 1, 0]).mean(dim=1)
    areas = width * height
    assert areas.max() < 1.1
    assert areas.max() > 0.9
    assert least - 0.05 < areas.min() < least + 0.1


@pytest.mark.parametrize(("level", "colour"), [("light", 0.1), ("medium", 0.3)])
def test_colour_changes_stay_within_level(level, colour):
    def vary(*colours):
        halves = torch.tensor(colours, dtype=torch.uint8).repeat_interleave(16, dim=0)
        pictures = halves.expand(300, 32, 32, 3)
        drawn = changes(300, level=level)
        upright = draw_changes(300, level="none", flip=False, seed=0, epoch=0).maps
        return augment(pictures, dataclasses.replace(drawn, maps=upright), output_size=32)

    def is_within(factors):
        return 1 - colour <= factors.min() < 1 - 0.8 * colour < 1 + 0.8 * colour < factors.max()

    flat = vary([100, 100, 100], [100, 100, 100]).mean(dim=(1, 2, 3)) / 100
    assert is_within(flat)
    assert flat.max() <= 1 + colour
    halves = vary([80, 80, 80], [120, 120, 120])[:, 0].mean(dim=1)
    contrast = (halves[:, 24] - halves[:, 8]) / 40 / flat
    assert is_within(contrast)
    tinted = vary([120, 100, 80], [120, 100, 80]).mean(dim=(2, 3))
    saturation = (tinted[:, 0] - tinted[:, 2]) / 40 / flat / contrast
    assert is_within(saturation)


def test_crops_lie_within_picture_and_reach_its_borders():
    ramp = torch.linspace(0, 255, 256).round().to(torch.uint8).expand(256, 256)
    pictures = torch.stack([ramp, ramp.T, ramp], dim=2)[None].expand(300, 256, 256, 3)
    plain = dataclasses.replace(changes(300, level="strong"), seeds=None)
    found = augment(pictures, plain, output_size=32)
    assert (found[:, 0].diff(dim=2) >= 0).all()  # beyond the border it would be reflected
    assert (found[:, 1].diff(dim=1) >= 0).all()
    for borders in (found[:, 0, 16], found[:, 1, :, 16]):
        assert borders[:, 0].min() < 10
        assert borders[:, -1].max() > 245
        assert borders[:, 0].max() > 60
        assert borders[:, -1].min() < 195


def test_changes_of_an_image_are_independent():
    drawn = draw_changes(4000, level="medium", flip=True, seed=0, epoch=0)
    (a, b, left), (c, d, top) = drawn.maps.unbind(dim=1)[0].T, drawn.maps.unbind(dim=1)[1].T
    mirror = a.sign()
    angle = torch.atan2(c * mirror, d)
    shear = b / a.abs() + angle.tan()
    area, stretch = (a * d).abs(), (a / d).abs().log()
    drawn = torch.stack([mirror, angle, shear, area, stretch, left, top, *drawn.colours.T])
    related = torch.corrcoef(drawn) - torch.eye(len(drawn))
    assert related.abs().max() < 0.15
