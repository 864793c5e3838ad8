"""Augmentation on whole batches: an affine map, a local warp and a colour change per image.

Crop, mirror image, rotation and shear are composed into one affine map, so that each image is
resampled once; a local warp is added to the map. All numbers are drawn for a whole epoch from
(seed, epoch) only: an image sees the same change whatever the batch, the worker or a resumed run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from rootstock.config.choices import Augmentation


@dataclass(frozen=True)
class Strength:
    """Ranges of the random changes; areas are shares of the image, angles are in degrees."""

    min_area: float
    max_stretch: float
    rotation: float
    shear: float
    colour: float


# Crops: gentler than ImageNet's .08, which cuts off objects in small sets (TrivialAugment and
# big_vision's "resmall" keep more as well).
STRENGTHS: dict[Augmentation, Strength] = {
    "none": Strength(1.0, 1.0, 0.0, 0.0, 0.0),
    "light": Strength(0.7, 1.1, 5.0, 3.0, 0.1),
    "medium": Strength(0.4, 1.25, 12.0, 6.0, 0.3),
    # Only crops: TrivialAugment turns, shears and recolours.
    "strong": Strength(0.4, 1.25, 0.0, 0.0, 0.0),
}


WARP_POINTS = 3
"""Points along each side that a local warp moves."""


@dataclass(frozen=True)
class Changes:
    """The drawn changes of N images: affine maps float32[N,2,3], colour factors [N,3].

    ``seeds`` int64[N]: seeds of TrivialAugment, only for level `strong`. ``warps``
    float32[N,2,G,G]: how far the points of a grid are moved, x before y, if at all; ``shifts``
    float32[N,3]: the value added to each channel, in grey levels.
    """

    maps: Tensor
    colours: Tensor
    seeds: Tensor | None = None
    warps: Tensor | None = None
    shifts: Tensor | None = None

    def __getitem__(self, indices: Tensor) -> Changes:
        others = (self.seeds, self.warps, self.shifts)
        chosen = (None if one is None else one[indices] for one in others)
        return Changes(self.maps[indices], self.colours[indices], *chosen)


def draw_changes(
    count: int,
    *,
    level: Augmentation,
    flip: bool,
    seed: int,
    epoch: int,
    local_warp: float = 0.0,
    channel_shift: float = 0.0,
) -> Changes:
    """Draw the changes of ``count`` images for one epoch.

    ``local_warp`` is the maximum move of a point, as a share of the image's side;
    ``channel_shift`` is the maximum value added to a channel, as a share of its range.
    """
    strength = STRENGTHS[level]
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    uniform = torch.rand(count, 10, generator=generator)

    def between(column: int, low: float, high: float) -> Tensor:
        return low + (high - low) * uniform[:, column]

    area = between(0, strength.min_area, 1.0)
    stretch = torch.exp(between(1, -1.0, 1.0) * math.log(strength.max_stretch))
    width, height = (area * stretch).sqrt().clamp(max=1), (area / stretch).sqrt().clamp(max=1)
    mirror = torch.where(uniform[:, 2] < 0.5, -1.0, 1.0) if flip else torch.ones(count)
    angle = torch.deg2rad(between(3, -strength.rotation, strength.rotation))
    shear = torch.tan(torch.deg2rad(between(4, -strength.shear, strength.shear)))
    left = between(5, -1.0, 1.0) * (1 - width)
    top = between(6, -1.0, 1.0) * (1 - height)
    cos, sin = angle.cos(), angle.sin()
    # Map output coordinates in [-1, 1] to the positions in the source image.
    rows = [
        width * mirror * cos,
        width * (shear * cos - sin),
        left,
        height * mirror * sin,
        height * (shear * sin + cos),
        top,
    ]
    colours = 1.0 + strength.colour * (2 * uniform[:, 7:10] - 1)
    seeds = None
    if level == "strong":
        seeds = torch.randint(2**62, (count,), generator=generator)
    warps = shifts = None
    if local_warp:
        moves = 2 * torch.rand(count, 2, WARP_POINTS, WARP_POINTS, generator=generator) - 1
        warps = F.pad(2 * local_warp * moves, (1, 1, 1, 1))  # the border does not move
    if channel_shift:
        shifts = 255 * channel_shift * (2 * torch.rand(count, 3, generator=generator) - 1)
    return Changes(torch.stack(rows, dim=1).view(count, 2, 3), colours, seeds, warps, shifts)


def augment(images: Tensor, changes: Changes, *, output_size: int) -> Tensor:
    """Return crops float32[N,3,S,S] in 0..255 of uint8[N,P,P,3], turned and recoloured."""
    channels_first = images.permute(0, 3, 1, 2)
    if changes.seeds is not None:
        channels_first = _trivial(channels_first, changes.seeds)
    source = channels_first.float()
    shape = [len(images), 3, output_size, output_size]
    grid = F.affine_grid(changes.maps.to(source.device), shape, align_corners=False)
    if changes.warps is not None:
        moves = F.interpolate(
            changes.warps.to(source.device), shape[2:], mode="bicubic", align_corners=True
        )
        grid = grid + moves.permute(0, 2, 3, 1)
    warped = F.grid_sample(source, grid, padding_mode="reflection", align_corners=False)
    brightness, contrast, saturation = (
        changes.colours[:, i].to(source.device).view(-1, 1, 1, 1) for i in range(3)
    )
    warped = warped * brightness
    mean = warped.mean(dim=(1, 2, 3), keepdim=True)
    warped = mean + (warped - mean) * contrast
    grey = warped.mean(dim=1, keepdim=True)
    warped = grey + (warped - grey) * saturation
    if changes.shifts is not None:
        warped = warped + changes.shifts.to(source.device).view(-1, 3, 1, 1)
    return warped.clamp(0, 255)


def show_changes(
    images: Tensor,
    *,
    output_size: int,
    level: Augmentation,
    flip: bool,
    seed: int,
    local_warp: float = 0.0,
    channel_shift: float = 0.0,
) -> dict[str, Tensor]:
    """Return images uint8[N,P,P,3] after each of the changes, by name, and after all of them.

    The first ones are unchanged; all are uint8[N,S,S,3].
    """
    count = len(images)
    drawn = draw_changes(
        count,
        level=level,
        flip=flip,
        seed=seed,
        epoch=0,
        local_warp=local_warp,
        channel_shift=channel_shift,
    )
    still = draw_changes(count, level="none", flip=False, seed=seed, epoch=0)
    mirrored = still.maps * torch.tensor([-1.0, 1.0]).view(2, 1)
    shown = {"original": still}
    if level != "none":
        straight = draw_changes(count, level=level, flip=False, seed=seed, epoch=0)
        shown["crop, turn and shear"] = replace(still, maps=straight.maps)
    if flip:
        shown["mirror image"] = replace(still, maps=mirrored)
    if drawn.seeds is not None:
        shown["TrivialAugment"] = replace(still, seeds=drawn.seeds)
    elif level != "none":
        shown["colour and contrast"] = replace(still, colours=drawn.colours)
    if drawn.warps is not None:
        shown["local warp"] = replace(still, warps=drawn.warps)
    if drawn.shifts is not None:
        shown["shift of channels"] = replace(still, shifts=drawn.shifts)
    shown["all together"] = drawn
    return {
        name: augment(images, changes, output_size=output_size).permute(0, 2, 3, 1).to(torch.uint8)
        for name, changes in shown.items()
    }


def _trivial(images: Tensor, seeds: Tensor) -> Tensor:
    """Apply one random operation of random strength per image (arXiv:2103.10158)."""
    from torchvision.transforms.v2 import TrivialAugmentWide

    change = TrivialAugmentWide()
    changed = []
    # torchvision draws from torch's global generator, whose state the training must not lose
    with torch.random.fork_rng(devices=[]):
        for image, seed in zip(images, seeds.tolist(), strict=True):
            torch.manual_seed(seed)
            changed.append(change(image.contiguous()))
    return torch.stack(changed)
