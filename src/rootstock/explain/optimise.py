"""Images made by gradient ascent that excite a network most. Needs torch.

Each starts from a seed, so the same model gives the same pictures.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rootstock.explain.lens import Lens

JITTER_SHARE = 1 / 28
"""Shifts as a share of the side; they suppress high frequencies (Mordvintsev et al. 2015)."""
SMOOTHNESS = 0.02
"""Weight of the total variation relative to the error of an inversion."""
STEP, ROUGHNESS_SHARE = 0.015, 0.15
"""Gradient ascent: mean step of a value in [0, 1], and weight of the smoothing."""


def maximise(
    lens: Lens, score: Callable[[Tensor], Tensor], *, steps: int = 80, seed: int = 0
) -> Tensor:
    """Return an image [1,3,S,S] in [0, 1] that raises ``score`` of an image (Simonyan 2014).

    Gradient ascent from faint noise around grey, with jitter and a penalty on roughness.
    """
    side = lens.preprocess.input_size
    jitter = round(JITTER_SHARE * side)
    chance = torch.Generator().manual_seed(seed)
    image = (0.5 + 0.02 * torch.randn(1, 3, side, side, generator=chance)).clamp(0, 1)
    for _ in range(steps):
        image.requires_grad_()
        shift = torch.randint(-jitter, jitter + 1, (2,), generator=chance).tolist()
        moved = torch.roll(image, shift, dims=(2, 3))
        (rise,) = torch.autograd.grad(score(moved), image)
        (roughness,) = torch.autograd.grad(total_variation(image), image)
        # Each is scaled by its size: outputs of networks differ by orders of magnitude.
        step = _unit(rise) - ROUGHNESS_SHARE * _unit(roughness)
        image = (image.detach() + STEP * step).clamp(0, 1)
    return image


def invert(lens: Lens, target: Tensor, tap: int, *, steps: int = 150, seed: int = 0) -> Tensor:
    """Return an image [1,3,S,S] whose maps at a tap equal those of ``target`` [1,3,S,S].

    Details that a tap has kept can be painted again; the rest is lost (Mahendran and Vedaldi
    2015).
    """
    wanted = lens.map_at(target, tap).detach()
    size = wanted.square().mean().clamp(min=1e-8)
    chance = torch.Generator().manual_seed(seed)
    noise = torch.randn(target.shape, generator=chance)
    image = (target.mean(dim=(2, 3), keepdim=True) + 0.05 * noise).clamp(0, 1).requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.03)
    for _ in range(steps):
        error = (lens.map_at(image, tap) - wanted).square().mean() / size
        loss = error + SMOOTHNESS * total_variation(image)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            image.clamp_(0, 1)
    return image.detach()


def dream(lens: Lens, image: Tensor, tap: int, *, octaves: int = 3, steps: int = 12) -> Tensor:
    """Return an image [1,3,S,S] to which a tap responds more strongly (Mordvintsev 2015).

    The norm of the tap's maps rises from coarse to fine sizes of the image.
    """
    side = image.shape[-1]
    detail = torch.zeros_like(image)
    dreamt = image
    for octave in range(octaves):
        size = round(side / 1.4 ** (octaves - 1 - octave))
        base = _resize(image, size)
        dreamt = (base + _resize(detail, size)).clamp(0, 1).requires_grad_()
        for _ in range(steps):
            (gradient,) = torch.autograd.grad(lens.map_at(dreamt, tap).square().mean(), dreamt)
            with torch.no_grad():
                dreamt = (dreamt + 0.02 * _unit(gradient)).clamp(0, 1)
            dreamt.requires_grad_()
        detail = dreamt.detach() - base
    return dreamt.detach()


def _unit(gradient: Tensor) -> Tensor:
    """Return a gradient whose mean size is 1, without its few largest values."""
    return (gradient / gradient.abs().mean().clamp(min=1e-12)).clamp(-3, 3)


def total_variation(image: Tensor) -> Tensor:
    """Return the mean difference of neighbouring pixels."""
    down = (image[..., 1:, :] - image[..., :-1, :]).abs().mean()
    right = (image[..., 1:] - image[..., :-1]).abs().mean()
    return down + right


def _resize(image: Tensor, size: int) -> Tensor:
    return F.interpolate(image, (size, size), mode="bilinear", align_corners=False)
