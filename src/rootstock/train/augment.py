"""Augmentation on whole batches: one affine map and one colour change an image.

Crop, mirror image, rotation and shear are composed into one affine map, so that each image is
resampled once. All numbers are drawn for a whole epoch from (seed, epoch) alone: an image sees the
same change whatever the batch, the worker or a resumed run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rootstock.config.choices import Augmentation


@dataclass(frozen=True)
class Strength:
    """Ranges of the random changes; areas are shares of the image, angles in degrees."""

    min_area: float
    max_stretch: float
    rotation: float
    shear: float
    colour: float


# Crops: gentler than ImageNet's .08, which cuts small sets' objects away (TrivialAugment and
# big_vision's "resmall" keep more as well).
STRENGTHS: dict[Augmentation, Strength] = {
    "none": Strength(1.0, 1.0, 0.0, 0.0, 0.0),
    "light": Strength(0.7, 1.1, 5.0, 3.0, 0.1),
    "medium": Strength(0.4, 1.25, 12.0, 6.0, 0.3),
    # Crops alone: TrivialAugment turns, shears and recolours.
    "strong": Strength(0.4, 1.25, 0.0, 0.0, 0.0),
}


@dataclass(frozen=True)
class Changes:
    """The drawn changes of N images: affine maps float32[N,2,3], colour factors [N,3].

    ``seeds`` int64[N]: what TrivialAugment draws from, for level `strong` only.
    """

    maps: Tensor
    colours: Tensor
    seeds: Tensor | None = None

    def __getitem__(self, indices: Tensor) -> Changes:
        seeds = None if self.seeds is None else self.seeds[indices]
        return Changes(self.maps[indices], self.colours[indices], seeds)


def draw_changes(count: int, *, level: Augmentation, flip: bool, seed: int, epoch: int) -> Changes:
    """Draw the changes of ``count`` images for one epoch."""
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
    # Output coordinates in [-1, 1] -> where they are read in the source image.
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
    return Changes(torch.stack(rows, dim=1).view(count, 2, 3), colours, seeds)


def augment(images: Tensor, changes: Changes, *, output_size: int) -> Tensor:
    """uint8[N,P,P,3] -> float32[N,3,S,S] in 0..255, cropped, turned and recoloured."""
    channels_first = images.permute(0, 3, 1, 2)
    if changes.seeds is not None:
        channels_first = _trivial(channels_first, changes.seeds)
    source = channels_first.float()
    shape = [len(images), 3, output_size, output_size]
    grid = F.affine_grid(changes.maps.to(source.device), shape, align_corners=False)
    warped = F.grid_sample(source, grid, padding_mode="reflection", align_corners=False)
    brightness, contrast, saturation = (
        changes.colours[:, i].to(source.device).view(-1, 1, 1, 1) for i in range(3)
    )
    warped = warped * brightness
    mean = warped.mean(dim=(1, 2, 3), keepdim=True)
    warped = mean + (warped - mean) * contrast
    grey = warped.mean(dim=1, keepdim=True)
    return (grey + (warped - grey) * saturation).clamp(0, 255)


def _trivial(images: Tensor, seeds: Tensor) -> Tensor:
    """One random operation of random strength an image (TrivialAugment, arXiv:2103.10158)."""
    from torchvision.transforms.v2 import TrivialAugmentWide

    change = TrivialAugmentWide()
    changed = []
    # torchvision draws from torch's own generator, which the training must find as it left it
    with torch.random.fork_rng(devices=[]):
        for image, seed in zip(images, seeds.tolist(), strict=True):
            torch.manual_seed(seed)
            changed.append(change(image.contiguous()))
    return torch.stack(changed)
